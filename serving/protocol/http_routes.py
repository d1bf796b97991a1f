"""What the groups of HTTP routes share: how errors are answered, paths of models, bodies."""

import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ridgeline.errors import Unavailable
from serving.protocol.http_compression import decompressed
from serving.protocol.http_upload import awaited
from serving.protocol.statuses import status_of

MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that has gone; nobody receives it
_NS_PER_MS = 1_000_000
Handler = Callable[[Request], Awaitable[Response]]


def route(path: str, handler: Handler, *, methods: tuple[str, ...] = ("GET",)) -> Route:
    """A route whose handler may raise: the client receives what the table of statuses says."""
    return Route(path, _answering(handler), methods=list(methods))


def model_of(request: Request) -> tuple[str, str]:
    """Name and version in the path of a request; an empty version asks for the newest."""
    return request.path_params["model"], request.path_params.get("version", "")


async def body_of(request: Request, *, most_bytes: int) -> bytes:
    """The body of a request, decompressed. Raises HTTPException where it is larger.

    Also Overloaded where there was no room for it beside others that are on their way, and what
    `http_compression.decompressed` raises.
    """
    chunks = []
    received_bytes = 0
    with awaited(request.app.state.uploads) as upload:
        async for chunk in request.stream():
            received_bytes += len(chunk)
            if received_bytes > most_bytes:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"the request is larger than {most_bytes} bytes",
                )
            chunks.append(chunk)
            upload.grow(len(chunk))
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    encoding = request.headers.get("content-encoding")
    if encoding is None:
        return body
    return await decompressed(body, encoding=encoding, most_bytes=most_bytes)


def retry_headers(error: Exception) -> tuple[tuple[str, str], ...]:
    """When to try again: Retry-After knows whole seconds only, so milliseconds stand beside it."""
    wait_ns = error.retry_after_ns if isinstance(error, Unavailable) else None
    if wait_ns is None:
        return ()
    wait_ms = max(1, -(-wait_ns // _NS_PER_MS))
    return (("retry-after", str(-(-wait_ms // 1000))), ("retry-after-ms", str(wait_ms)))


def _answering(handler: Handler) -> Handler:
    """Turn what a handler raises into the status and body that the client receives."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)  # the connection is closed
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            _, status, text = status_of(error, like_triton=request.app.state.like_triton)
            return JSONResponse(
                {"error": text}, status_code=status, headers=dict(retry_headers(error))
            )

    return answer
