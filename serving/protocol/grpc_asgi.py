"""gRPC over ASGI: its framing over HTTP/2, for any ASGI server that sends trailers.

The framing is that of grpc/doc/PROTOCOL-HTTP2.md: each message behind one byte of compression flag
and four of big-endian length; the status in trailers, or, where nothing else was sent, in the
headers ("trailers-only"), which makes a refusal cheap.
"""

import asyncio
import time
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.dataplane import DataPlane
from serving.protocol.grpc_methods import Method, methods
from serving.protocol.statuses import status_of

_PREFIX_BYTES = 5
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_ACCEPT = (b"grpc-accept-encoding", b"identity, deflate, gzip")
_UNIT_NS = {b"n": 1, b"u": 10**3, b"m": 10**6, b"S": 10**9, b"M": 60 * 10**9, b"H": 3600 * 10**9}
_MAX_TIMEOUT_DIGITS = 8
# Printable ASCII travels as it is in grpc-message, but for the percent sign.
_PLAIN_IN_MESSAGE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT_TYPE, _ACCEPT],
    "trailers": True,
}
_OK = {
    "type": "http.response.trailers",
    "headers": [(b"grpc-status", b"0")],
    "more_trailers": False,
}
_EMPTY_BODY = {"type": "http.response.body", "body": b""}

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Refused(Exception):
    """A call that never becomes a message: its status and what the client is told."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class _ClientGone(Exception):
    """The client has closed or reset the stream: nobody waits for an answer."""


class GrpcApp:
    """The ASGI application. A call whose client goes away is cancelled."""

    def __init__(self, dataplane: DataPlane, *, max_request_bytes: int) -> None:
        self._methods = methods(dataplane)
        self._max_request_bytes = max_request_bytes

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        """Answer one call."""
        try:
            method = self._methods.get(scope["path"])
            if method is None:
                raise _Refused(grpc.StatusCode.UNIMPLEMENTED, f"no method {scope['path']!r}")
            headers = scope["headers"]
            deadline_ns = _deadline_ns(headers)
            payload = _message(await self._body(receive), headers, most=self._max_request_bytes)
            _cancel_when_gone(receive)
            answer = (
                await method.answer(_parsed(method, payload), deadline_ns)
            ).SerializeToString()
        except _ClientGone:
            return
        except _Refused as error:
            await _send_status(send, error.code, str(error))
            return
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            code, _, text = status_of(error)
            await _send_status(send, code, text)
            return
        await send(_START)
        frame = b"\0" + len(answer).to_bytes(4, "big") + answer
        await send({"type": "http.response.body", "body": frame})
        await send(_OK)

    async def _body(self, receive: _Receive) -> bytes:
        event = await receive()
        body: bytes = event.get("body", b"")
        if not event.get("more_body") and event["type"] == "http.request":
            return body
        parts, size = [body], len(body)
        while event.get("more_body"):
            event = await receive()
            part = event.get("body", b"")
            size += len(part)
            if size > self._max_request_bytes + _PREFIX_BYTES:
                raise _too_large(size, most=self._max_request_bytes)
            if part:
                parts.append(part)
        if event["type"] != "http.request":
            raise _ClientGone
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _cancel_when_gone(receive: _Receive) -> None:
    """Cancel the running task when the client goes away.

    The request has been read, so that what comes next can only be a disconnect. A server whose
    `receive` hands out futures (h2corn) makes this cost no task; any other is not watched.
    """
    gone = receive()
    if not asyncio.isfuture(gone):
        if asyncio.iscoroutine(gone):
            gone.close()
        return
    task = asyncio.current_task()
    if task is not None:
        gone.add_done_callback(lambda _: task.cancel())


def _parsed(method: Method, payload: bytes) -> Any:
    try:
        return method.request.FromString(payload)
    except DecodeError as error:
        raise _Refused(grpc.StatusCode.INTERNAL, f"the request cannot be parsed: {error}") from None


def _message(body: bytes, headers: list[tuple[bytes, bytes]], *, most: int) -> bytes:
    """The one message in a body, decompressed."""
    if len(body) < _PREFIX_BYTES:
        raise _Refused(
            grpc.StatusCode.INTERNAL, f"expected one message, received {len(body)} bytes"
        )
    length = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    if length != len(body) - _PREFIX_BYTES:
        text = f"the message announces {length} bytes, {len(body) - _PREFIX_BYTES} came"
        raise _Refused(grpc.StatusCode.INTERNAL, text)
    if length > most:
        raise _too_large(length, most=most)
    payload = body[_PREFIX_BYTES:]
    return (
        _decompressed(payload, _header(headers, b"grpc-encoding"), most=most)
        if body[0]
        else payload
    )


def _decompressed(payload: bytes, encoding: bytes | None, *, most: int) -> bytes:
    """A compressed message, whose real size may not pass the limit either."""
    windows = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
    if encoding not in windows:
        text = f"grpc-encoding must be gzip or deflate for a compressed message, is {encoding!r}"
        raise _Refused(grpc.StatusCode.UNIMPLEMENTED, text)
    reader = zlib.decompressobj(windows[encoding])
    try:
        data = reader.decompress(payload, most + 1)
    except zlib.error as error:
        raise _Refused(
            grpc.StatusCode.INTERNAL, f"the message is not {encoding!r}: {error}"
        ) from None
    if len(data) > most:
        raise _too_large(len(data), most=most)
    if not reader.eof:
        raise _Refused(grpc.StatusCode.INTERNAL, "the compressed message is cut off")
    return data


def _deadline_ns(headers: list[tuple[bytes, bytes]]) -> int | None:
    """When the call's time is up, on the monotonic clock."""
    timeout = _header(headers, b"grpc-timeout")
    if timeout is None:
        return None
    digits, unit = timeout[:-1], _UNIT_NS.get(timeout[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MAX_TIMEOUT_DIGITS:
        raise _Refused(grpc.StatusCode.INTERNAL, f"grpc-timeout is malformed: {timeout!r}")
    return time.monotonic_ns() + int(digits) * unit


def _header(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None


def _too_large(size: int, *, most: int) -> _Refused:
    text = f"the request is larger than {most} bytes, at least {size} came"
    return _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


async def _send_status(send: _Send, code: grpc.StatusCode, text: str) -> None:
    """A trailers-only answer."""
    message = urllib.parse.quote(text, safe=_PLAIN_IN_MESSAGE).encode("ascii")
    status = str(code.value[0]).encode("ascii")
    headers = [_CONTENT_TYPE, (b"grpc-status", status), (b"grpc-message", message)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send(_EMPTY_BODY)
