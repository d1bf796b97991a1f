"""HTTP routes of the logging extension."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.dataplane import DataPlane
from serving.protocol.http_repository import table_of
from serving.protocol.http_routes import route


def logging_routes(dataplane: DataPlane, *, max_request_bytes: int) -> list[Route]:
    """GET and POST v2/logging: both answer all settings."""

    async def show(_request: Request) -> Response:
        return JSONResponse(dataplane.logs.table)

    async def update(request: Request) -> Response:
        dataplane.logs.update(await table_of(request, most_bytes=max_request_bytes))
        return JSONResponse(dataplane.logs.table)

    return [route("/v2/logging", show), route("/v2/logging", update, methods=("POST",))]
