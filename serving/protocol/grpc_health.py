"""grpc.health.v1: whether the server takes inference requests, asked once or watched."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from grpc_health.v1 import health_pb2

from ridgeline.errors import NotFound, Unavailable
from serving.dataplane import DataPlane
from serving.protocol.grpc_method import (
    INFERENCE_SERVICE,
    AnyMethod,
    CallContext,
    Method,
    StreamMethod,
    only,
)

_HEALTH = "grpc.health.v1.Health"
_SERVING = health_pb2.HealthCheckResponse.ServingStatus
_KNOWN = ("", INFERENCE_SERVICE)


def health_methods(dataplane: DataPlane) -> dict[str, AnyMethod]:
    """The methods of the health service by their paths."""
    health = _HealthService(dataplane)
    return {
        f"/{_HEALTH}/Check": Method(health_pb2.HealthCheckRequest, health.check),
        f"/{_HEALTH}/Watch": StreamMethod(health_pb2.HealthCheckRequest, health.watch),
    }


class _HealthService:
    """grpc.health.v1 for the whole server ("") and for the inference service."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    async def check(self, request: Any, _deadline_ns: int | None) -> Any:
        """SERVING while inference requests are taken. Raises NotFound for an unknown service."""
        if request.service not in _KNOWN:
            raise NotFound(f"unknown service {request.service!r}")
        return self._status()

    async def watch(
        self, requests: AsyncIterator[Any], _context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The status now, and whenever it changes; an unknown service may become known."""
        request = await only(requests)
        if request.service not in _KNOWN:
            yield health_pb2.HealthCheckResponse(status=_SERVING.SERVICE_UNKNOWN)
        else:
            if not self._dataplane.ready:
                yield self._status()
                await self._dataplane.until_loaded()
            yield self._status()
        await self._dataplane.until_stopping()
        if request.service in _KNOWN:
            yield self._status()
        raise Unavailable("the server is stopping")

    def _status(self) -> Any:
        ready = self._dataplane.ready
        return health_pb2.HealthCheckResponse(
            status=_SERVING.SERVING if ready else _SERVING.NOT_SERVING
        )
