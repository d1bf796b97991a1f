"""HTTP routes of inference."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ridgeline.errors import InvalidInput
from serving.dataplane import DataPlane
from serving.protocol.http_codec import (
    HEADER_LENGTH,
    EncodedResponse,
    Head,
    decode_request,
    encode_response,
)
from serving.protocol.http_compression import LEAST_BYTES, accepted, compressed
from serving.protocol.http_known import KnownHttpRequests
from serving.protocol.http_routes import MODEL_PATHS, body_of, model_of, route

WIRE = "ridgeline.wire"  # in a scope: the bytes of the whole request, where they came at once
_UNWATCHED_S = 0.02  # a watch costs each request more than the few save that leave so early
# Ours, and the one that Envoy and Istio add to the requests that they forward.
_TIMEOUT_HEADERS = ("ridgeline-timeout-ms", "x-envoy-expected-rq-timeout-ms")
_NS_PER_MS = 1_000_000
_MOST_TIMEOUT_MS = 1e12  # some 30 years: whoever asks for more waits for ever


def inference_routes(
    dataplane: DataPlane, *, max_request_bytes: int, known: KnownHttpRequests | None
) -> list[Route]:
    """POST .../infer."""
    inference = _Inference(dataplane, max_request_bytes=max_request_bytes, known=known)
    return [route(f"{path}/infer", inference.infer, methods=("POST",)) for path in MODEL_PATHS]


class _Inference:
    def __init__(
        self, dataplane: DataPlane, *, max_request_bytes: int, known: KnownHttpRequests | None
    ) -> None:
        self._dataplane = dataplane
        self._max_request_bytes = max_request_bytes
        self._known = known

    async def infer(self, request: Request) -> Response:
        """One inference, JSON or binary."""
        model, version = model_of(request)
        timeout_ns = timeout_ns_of(request)
        deadline_ns = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
        body = await body_of(request, most_bytes=self._max_request_bytes)
        head = Head(
            model_name=model,
            model_version=version,
            header_length=_header_length(request),
            deadline_ns=deadline_ns,
            headers=self._dataplane.forwarding.of_http(request.headers.items()),
            regions=self._dataplane.regions,
            spec=lambda: self._dataplane.find(model, version=version).loaded.spec,
            any_number=self._dataplane.like_triton,
        )
        decoded = decode_request(body, head=head)
        if decoded.wishes.classify:
            found = self._dataplane.find(model, version=version)
            decoded = dataclasses.replace(decoded, wishes=decoded.wishes.knowing(found))
        with cancelled_on_disconnect(request):
            response = await self._dataplane.infer(decoded.request)
        encoded = encode_response(response, decoded=decoded)
        is_binary = encoded.header_length is not None
        encoding = accepted(request.headers.get("accept-encoding"), binary=is_binary)
        if encoding and len(encoded.body) >= LEAST_BYTES:
            return await _compressed(encoded, encoding=encoding)
        if (
            self._known is not None
            and WIRE in request.scope
            and "content-encoding" not in request.headers  # its tensors are not in the bytes
        ):
            self._known.learn_http(request.scope[WIRE], decoded, timeout_ns=timeout_ns)
        return Response(encoded.body, headers=_fields(encoded))


def _header_length(request: Request) -> str | None:
    values = request.headers.getlist(HEADER_LENGTH)
    if len(values) > 1:
        raise InvalidInput(f"{HEADER_LENGTH} must be given once, received {values[:5]}")
    return values[0] if values else None


async def _compressed(encoded: EncodedResponse, *, encoding: str) -> Response:
    body = await compressed(encoded.body, encoding=encoding)
    return Response(
        body,
        headers={**_fields(encoded), "content-encoding": encoding, "vary": "accept-encoding"},
    )


def _fields(encoded: EncodedResponse) -> dict[str, str]:
    if encoded.header_length is None:
        return {"content-type": "application/json"}
    return {
        "content-type": "application/octet-stream",
        HEADER_LENGTH: str(encoded.header_length),
    }


@contextlib.contextmanager
def cancelled_on_disconnect(request: Request) -> Iterator[None]:
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


def timeout_ns_of(request: Request) -> int | None:
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
