"""gRPC's own framing over HTTP/2, as bytes: header fields in, messages, statuses out.

As in grpc/doc/PROTOCOL-HTTP2.md: each message behind one byte of compression flag and four of
big-endian length; the status in trailers, or, where nothing else was sent, in the headers
("trailers-only"), which makes a refusal cheap.
"""

import functools
import re
import urllib.parse
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc

from serving.forwarding import HeaderForwarding
from serving.protocol.http2_headers import Envelope, Fields, stateless_block
from serving.protocol.uploads import PIECE_BYTES

PREFIX_BYTES: Final = 5
_IS_GRPC = re.compile(rb"application/grpc(?![^+;])").match  # grpc-web is another protocol
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_STATUS = (b":status", b"200")
_HEAD = [_STATUS, _CONTENT_TYPE, (b"grpc-accept-encoding", b"identity, deflate, gzip")]
OK: Final = Envelope(head=_HEAD, trailers=[(b"grpc-status", b"0")])
HEAD_BLOCK = stateless_block(_HEAD)
NOT_GRPC_BLOCK = stateless_block([(b":status", b"415")])

_UNIT_NS = {b"n": 1, b"u": 10**3, b"m": 10**6, b"S": 10**9, b"M": 60 * 10**9, b"H": 3600 * 10**9}
_MAX_TIMEOUT_DIGITS = 8
_MAX_TIMEOUT_NS = 365 * 24 * 3600 * 10**9  # a longer one is none
_MAX_TEXT_CHARACTERS = 600  # what a client sent can be longer than its metadata may be
# Printable ASCII travels as it is in grpc-message, but for the percent sign.
_PLAIN_IN_MESSAGE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_OUTER_SPACES = re.compile("^ +| +$")  # HTTP/2 forbids them around a field's value


class Refused(Exception):
    """A call that never becomes a message: its status and what the client is told."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text[:_MAX_TEXT_CHARACTERS])
        self.code = code


@dataclass(frozen=True, slots=True)
class CallHead:
    """What the header fields of a call say; `fault` tells why it cannot be answered.

    Only what can be answered has a path. `metadata` are all fields, those of HTTP/2 included; it
    `forwards` some of them to the model.
    """

    path: str
    timeout_ns: int | None = None
    encoding: bytes = b"identity"
    is_grpc: bool = True
    fault: str | None = None
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)
    forwards: bool = False


def read_head(fields: Fields, *, forwarding: HeaderForwarding | None = None) -> CallHead:
    """The head of a call."""
    by_name = dict(fields)
    content_type = by_name.get(b"content-type", b"")
    if by_name.get(b":method") != b"POST" or not _IS_GRPC(content_type):
        return CallHead(path="", is_grpc=False)
    path = by_name.get(b":path", b"").decode("ascii", "replace")
    timeout_ns = None
    timeout = by_name.get(b"grpc-timeout")
    if timeout is not None:
        digits, unit = timeout[:-1], _UNIT_NS.get(timeout[-1:])
        if unit is None or not digits.isdigit() or len(digits) > _MAX_TIMEOUT_DIGITS:
            return CallHead(path="", fault=f"grpc-timeout is malformed: {timeout!r}")
        timeout_ns = int(digits) * unit
        if timeout_ns > _MAX_TIMEOUT_NS:
            timeout_ns = None
    return CallHead(
        path=path,
        timeout_ns=timeout_ns,
        encoding=by_name.get(b"grpc-encoding", b"identity"),
        metadata=by_name,
        forwards=forwarding is not None and bool(forwarding.of_grpc(by_name.items())),
    )


def message(body: bytes, *, encoding: bytes, most: int) -> bytes:
    """The one message in a body, decompressed, at most `most` bytes. Raises Refused."""
    if len(body) < PREFIX_BYTES:
        raise Refused(grpc.StatusCode.INTERNAL, f"expected one message, received {len(body)} bytes")
    length = int.from_bytes(body[1:PREFIX_BYTES], "big")
    if length != len(body) - PREFIX_BYTES:
        text = f"the message announces {length} bytes, {len(body) - PREFIX_BYTES} came"
        raise Refused(grpc.StatusCode.INTERNAL, text)
    if length > most:
        raise too_large(length, most=most)
    payload = body[PREFIX_BYTES:]
    return decompressed(payload, encoding, most=most) if body[0] else payload


class MessageReader:
    """Cuts the body of a call into messages of at most `most` bytes, as it comes."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._chunks: list[memoryview] = []
        self._size = 0
        self._needed = PREFIX_BYTES

    @property
    def unread_bytes(self) -> int:
        """What has come of a message that is not there as a whole."""
        return self._size

    @property
    def held_bytes(self) -> int:
        """The memory that it takes, about."""
        return self._size + PIECE_BYTES * len(self._chunks)

    def feed(self, chunk: memoryview) -> list[tuple[bool, bytes]]:
        """The messages that end with this piece, and of each whether it is compressed.

        Raises Refused for one that is too large, as soon as it is announced.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        messages: list[tuple[bool, bytes]] = []
        if self._size < self._needed:
            return messages
        data, position = b"".join(self._chunks), 0
        while True:
            begin = position + PREFIX_BYTES
            length = int.from_bytes(data[position + 1 : begin], "big") if begin <= len(data) else 0
            if length > self._most:
                raise too_large(length, most=self._most)
            self._needed = PREFIX_BYTES + length
            if position + self._needed > len(data):
                break
            messages.append((bool(data[position]), data[begin : begin + length]))
            position = begin + length
        rest = memoryview(data)[position:]
        self._chunks, self._size = [rest] if rest else [], len(rest)
        return messages


def framed(payload: bytes) -> bytes:
    """A message behind its prefix, not compressed."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def too_large(size: int, *, most: int) -> Refused:
    """The refusal of a request that is larger than admitted."""
    text = f"the request is larger than {most} bytes, at least {size} came"
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


@functools.lru_cache(maxsize=256)
def status_block(
    code: grpc.StatusCode, text: str, metadata: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """A trailers-only answer."""
    return stateless_block([_STATUS, _CONTENT_TYPE, *_status_fields(code, text, metadata)])


def trailers_block(
    code: grpc.StatusCode, text: str, metadata: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """The end of an answer that has begun."""
    return stateless_block(_status_fields(code, text, metadata))


def _status_fields(
    code: grpc.StatusCode, text: str, metadata: tuple[tuple[str, str], ...]
) -> list[tuple[bytes, bytes]]:
    fields = [(b"grpc-status", str(code.value[0]).encode("ascii"))]
    if text:
        quoted = urllib.parse.quote(text, safe=_PLAIN_IN_MESSAGE, errors="replace")
        quoted = _OUTER_SPACES.sub(lambda spaces: "%20" * len(spaces[0]), quoted)
        fields.append((b"grpc-message", quoted.encode("ascii")))
    return fields + [(name.encode("ascii"), value.encode("ascii")) for name, value in metadata]


def decompressed(payload: bytes, encoding: bytes, *, most: int) -> bytes:
    """A compressed message, whose real size may not pass the limit either."""
    windows = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
    if encoding not in windows:
        text = f"grpc-encoding must be gzip or deflate for a compressed message, is {encoding!r}"
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, text)
    reader = zlib.decompressobj(windows[encoding])
    try:
        data = reader.decompress(payload, most + 1)
    except zlib.error as error:
        raise Refused(
            grpc.StatusCode.INTERNAL, f"the message is not {encoding!r}: {error}"
        ) from None
    if len(data) > most:
        raise too_large(len(data), most=most)
    if not reader.eof:
        raise Refused(grpc.StatusCode.INTERNAL, "the compressed message is cut off")
    return data
