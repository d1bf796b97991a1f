"""HTTP routes of the trace extension."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.dataplane import DataPlane
from serving.protocol.http_repository import table_of
from serving.protocol.http_routes import route

_PATHS = ("/v2/trace/setting", "/v2/models/{model}/trace/setting")


def trace_routes(dataplane: DataPlane, *, max_request_bytes: int) -> list[Route]:
    """GET and POST v2[/models/{model}]/trace/setting: all answer every setting."""

    async def show(request: Request) -> Response:
        return JSONResponse(dataplane.trace_settings(request.path_params.get("model", "")))

    async def update(request: Request) -> Response:
        model = request.path_params.get("model", "")
        changes = await table_of(request, most_bytes=max_request_bytes)
        return JSONResponse(dataplane.trace_settings(model, changes=changes))

    return [
        *(route(path, show) for path in _PATHS),
        *(route(path, update, methods=("POST",)) for path in _PATHS),
    ]
