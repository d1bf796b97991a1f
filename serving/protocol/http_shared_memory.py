"""HTTP routes of shared memory: regions registered, listed and forgotten."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ridgeline.errors import Malformed
from serving.dataplane import DataPlane
from serving.protocol.cuda_memory import check_status, refuse
from serving.protocol.http_routes import body_of, route
from serving.protocol.json_body import json_object, required

_MAX_BODY_BYTES = 64 * 1024


def shared_memory_routes(dataplane: DataPlane) -> list[Route]:
    """Status, register and unregister, of system and of CUDA shared memory."""
    memory = _SharedMemory(dataplane)
    routes = []
    for kind, status, register, unregister in (
        ("system", memory.status, memory.register, memory.unregister),
        ("cuda", memory.cuda_status, memory.cuda_register, memory.cuda_unregister),
    ):
        path = f"/v2/{kind}sharedmemory"
        named = f"{path}/region/{{region}}"
        routes += [
            route(f"{path}/status", status),
            route(f"{named}/status", status),
            route(f"{named}/register", register, methods=("POST",)),
            route(f"{path}/unregister", unregister, methods=("POST",)),
            route(f"{named}/unregister", unregister, methods=("POST",)),
        ]
    return routes


class _SharedMemory:
    def __init__(self, dataplane: DataPlane) -> None:
        self._regions = dataplane.regions

    async def status(self, request: Request) -> Response:
        """Every region, or that of a name."""
        rows = [
            {
                "name": region.name,
                "key": region.key,
                "offset": region.offset,
                "byte_size": region.size_bytes,
            }
            for region in self._regions.listed(_name(request))
        ]
        return JSONResponse(rows)

    async def register(self, request: Request) -> Response:
        """Admit a region: key, byte_size, and offset (0)."""
        table = await _table(request)
        self._regions.register(
            _name(request),
            key=required(table, "key", kind=str, of="the request"),
            offset=_size({"offset": 0, **table}, "offset"),
            size_bytes=_size(table, "byte_size"),
        )
        return Response(media_type="application/json")

    async def unregister(self, request: Request) -> Response:
        """Forget a region; without a name, all of them."""
        self._regions.unregister(_name(request))
        return Response(media_type="application/json")

    async def cuda_status(self, request: Request) -> Response:
        """No region: none can be registered."""
        check_status(_name(request))
        return JSONResponse([])

    async def cuda_register(self, request: Request) -> Response:
        """Always refused: see `cuda_memory`."""
        await _table(request)
        refuse(_name(request))

    async def cuda_unregister(self, _request: Request) -> Response:
        """As Triton, forgetting what is not there is no error."""
        return Response(media_type="application/json")


def _name(request: Request) -> str:
    name: str = request.path_params.get("region", "")
    return name


def _size(table: Mapping[str, Any], key: str) -> int:
    size: int = required(table, key, kind=int, of="the request")
    if size < 0:
        raise Malformed(f"{key!r} of the request must not be negative, received {size}")
    return size


async def _table(request: Request) -> dict[str, Any]:
    return json_object(await body_of(request, most_bytes=_MAX_BODY_BYTES))
