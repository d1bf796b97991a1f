"""The HTTP application: the REST routes of the Open Inference Protocol v2."""

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ridgeline.errors import InvalidInput, Unavailable
from ridgeline.model import TensorSpec
from serving.dataplane import EXTENSIONS, SERVER_NAME, SERVER_VERSION, DataPlane, ModelMetadata
from serving.protocol.config_json import config_table
from serving.protocol.http_codec import HEADER_LENGTH, decode_request, encode_response
from serving.protocol.http_known import KnownHttpRequests
from serving.protocol.statuses import status_of

_MAX_PATH_CHARACTERS = 200  # of a path in an error text
_UNWATCHED_S = 0.02  # a watch costs each request more than the few save that leave so early
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that has gone; nobody receives it
WIRE = "ridgeline.wire"  # in a scope: the bytes of the whole request, where they came at once
# Ours, and the one that Envoy and Istio add to the requests that they forward.
_TIMEOUT_HEADERS = ("ridgeline-timeout-ms", "x-envoy-expected-rq-timeout-ms")
_NS_PER_MS = 1_000_000
_MOST_TIMEOUT_MS = 1e12  # some 30 years: whoever asks for more waits for ever
_Handler = Callable[[Request], Awaitable[Response]]


class Routes:
    """The handlers of the protocol's routes, each a few lines over the data plane."""

    def __init__(
        self, dataplane: DataPlane, *, max_request_bytes: int, known: KnownHttpRequests | None
    ) -> None:
        self._dataplane = dataplane
        self._max_request_bytes = max_request_bytes
        self._known = known

    def table(self) -> list[Route]:
        """Every route; a model's routes exist with and without a version."""
        routes = [
            Route("/v2", _answering(self.server_metadata)),
            Route("/v2/", _answering(self.server_metadata)),
            Route("/v2/health/live", _answering(self.live)),
            Route("/v2/health/ready", _answering(self.ready)),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(model, _answering(self.model_metadata)),
                Route(model + "/ready", _answering(self.model_ready)),
                Route(model + "/config", _answering(self.model_config)),
                Route(model + "/infer", _answering(self.infer), methods=["POST"]),
            ]
        return routes

    async def live(self, _request: Request) -> Response:
        """Whether the process answers at all."""
        return JSONResponse({"live": True})

    async def ready(self, _request: Request) -> Response:
        """200 while inference requests are taken, else 503."""
        return _readiness(self._dataplane.ready, name=None)

    async def model_ready(self, request: Request) -> Response:
        """200 where that model version can answer, else 503."""
        model, version = _model(request)
        return _readiness(self._dataplane.model_ready(model, version=version), name=model)

    async def server_metadata(self, _request: Request) -> Response:
        """Name, version, and the extensions that are really there."""
        return JSONResponse(
            {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": list(EXTENSIONS)}
        )

    async def model_metadata(self, request: Request) -> Response:
        """Inputs and outputs of a model as clients see them, with the batch axis."""
        model, version = _model(request)
        metadata = self._dataplane.model_metadata(model, version=version)
        return JSONResponse(
            {
                "name": metadata.spec.name,
                "versions": metadata.versions,
                "platform": metadata.platform,
                "inputs": [_tensor(tensor, metadata=metadata) for tensor in metadata.spec.inputs],
                "outputs": [_tensor(tensor, metadata=metadata) for tensor in metadata.spec.outputs],
            }
        )

    async def model_config(self, request: Request) -> Response:
        """The complete configuration; its parameters carry the model's cost."""
        model, version = _model(request)
        config = self._dataplane.config(model, version=version)
        return JSONResponse(config_table(config))

    async def infer(self, request: Request) -> Response:
        """One inference, JSON or binary."""
        model, version = _model(request)
        timeout_ns = _timeout_ns(request)
        deadline_ns = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
        decoded = decode_request(
            await self._body(request),
            model_name=model,
            model_version=version,
            header_length=request.headers.get(HEADER_LENGTH),
            deadline_ns=deadline_ns,
        )
        with _cancelled_on_disconnect(request):
            response = await self._dataplane.infer(decoded.request)
        if self._known is not None and WIRE in request.scope:
            self._known.learn_http(request.scope[WIRE], decoded, timeout_ns=timeout_ns)
        encoded = encode_response(response, decoded=decoded)
        if encoded.header_length is None:
            return Response(encoded.body, media_type="application/json")
        return Response(
            encoded.body,
            media_type="application/octet-stream",
            headers={HEADER_LENGTH: str(encoded.header_length)},
        )

    async def _body(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Encoding must be identity, received {encoding!r}",
            )
        chunks = []
        received_bytes = 0
        async for chunk in request.stream():
            received_bytes += len(chunk)
            if received_bytes > self._max_request_bytes:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"the request is larger than {self._max_request_bytes} bytes",
                )
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def http_app(
    dataplane: DataPlane, *, max_request_bytes: int, known: KnownHttpRequests | None = None
) -> Starlette:
    """The ASGI application of the protocol. What it answers may become `known` to the server."""
    routes = Routes(dataplane, max_request_bytes=max_request_bytes, known=known)
    app = Starlette(
        routes=routes.table(),
        exception_handlers={HTTPException: _http_error},  # type: ignore[dict-item]
    )
    app.router.redirect_slashes = False  # as Triton: a path is there or it is not
    return app


@contextlib.contextmanager
def _cancelled_on_disconnect(request: Request) -> Iterator[None]:
    """Give up what is inside when the client goes away: nobody would read the answer.

    The body has been read. Raises ClientDisconnect.
    """
    task = asyncio.current_task()
    watching: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task:
            task.cancel()

    def begin() -> None:
        nonlocal watching
        watching = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(_UNWATCHED_S, begin)
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if watching:
            watching.cancel()


def _answering(handler: _Handler) -> _Handler:
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
            _, status, text = status_of(error)
            return JSONResponse(
                {"error": text}, status_code=status, headers=dict(retry_headers(error))
            )

    return answer


def _timeout_ns(request: Request) -> int | None:
    """How long the client will wait, by the header fields that say so. Raises InvalidInput."""
    timeouts = []
    for name in _TIMEOUT_HEADERS:
        text = request.headers.get(name)
        if text is None:
            continue
        try:
            timeout_ms = float(text)
        except ValueError:
            timeout_ms = math.nan
        if not 0 <= timeout_ms < math.inf:
            raise InvalidInput(f"{name} must be milliseconds, not negative, received {text[:60]!r}")
        timeouts.append(int(min(timeout_ms, _MOST_TIMEOUT_MS) * _NS_PER_MS))
    return min(timeouts, default=None)


def retry_headers(error: Exception) -> tuple[tuple[str, str], ...]:
    """When to try again: Retry-After knows whole seconds only, so milliseconds stand beside it."""
    wait_ns = error.retry_after_ns if isinstance(error, Unavailable) else None
    if wait_ns is None:
        return ()
    wait_ms = max(1, -(-wait_ns // _NS_PER_MS))
    return (("retry-after", str(-(-wait_ms // 1000))), ("retry-after-ms", str(wait_ms)))


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Unknown routes, wrong methods and unreadable bodies, as the protocol words errors."""
    text = f"{request.method} {request.url.path[:_MAX_PATH_CHARACTERS]}: {error.detail}"
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _readiness(ready: bool, *, name: str | None) -> Response:
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    body: dict[str, Any] = {"ready": ready} if name is None else {"name": name, "ready": ready}
    return JSONResponse(body, status_code=status)


def _tensor(tensor: TensorSpec, *, metadata: ModelMetadata) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(metadata.spec.full_shape(tensor)),
    }
