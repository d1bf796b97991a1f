"""The HTTP application: the REST routes of the Open Inference Protocol v2, group by group."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.dataplane import DataPlane
from serving.protocol.http_docs import docs_routes
from serving.protocol.http_generate import generate_routes
from serving.protocol.http_inference import inference_routes
from serving.protocol.http_known import KnownHttpRequests
from serving.protocol.http_logging import logging_routes
from serving.protocol.http_metadata import metadata_routes
from serving.protocol.http_repository import repository_routes
from serving.protocol.http_shared_memory import shared_memory_routes
from serving.protocol.http_statistics import statistics_routes
from serving.protocol.http_trace import trace_routes
from serving.protocol.uploads import BODIES, Uploads

_MAX_PATH_CHARACTERS = 200  # of a path in an error text


def http_app(
    dataplane: DataPlane,
    *,
    max_request_bytes: int,
    known: KnownHttpRequests | None = None,
    uploads: Uploads | None = None,
) -> Starlette:
    """The ASGI application of the protocol. What it answers may become `known` to the server.

    `uploads` counts bodies that have not come as a whole, also those of other servers.
    """
    app = Starlette(
        routes=[
            *statistics_routes(dataplane),
            *logging_routes(dataplane, max_request_bytes=max_request_bytes),
            *trace_routes(dataplane, max_request_bytes=max_request_bytes),
            *repository_routes(dataplane, max_request_bytes=max_request_bytes),
            *shared_memory_routes(dataplane),
            *metadata_routes(dataplane),
            *generate_routes(dataplane, max_request_bytes=max_request_bytes),
            *inference_routes(dataplane, max_request_bytes=max_request_bytes, known=known),
            *docs_routes(),
        ],
        exception_handlers={HTTPException: _http_error},  # type: ignore[dict-item]
    )
    app.state.uploads = uploads or Uploads(most_bytes=BODIES * max_request_bytes)
    app.state.like_triton = dataplane.like_triton  # how errors are told
    app.router.redirect_slashes = False  # as Triton: a path is there or it is not
    return app


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Unknown routes, wrong methods and unreadable bodies, as the protocol words errors."""
    text = f"{request.method} {request.url.path[:_MAX_PATH_CHARACTERS]}: {error.detail}"
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)
