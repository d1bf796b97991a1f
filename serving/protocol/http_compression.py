"""Compressed bodies over HTTP: gzip and deflate, as in Triton, in both directions.

A request may announce any size: what comes out of it is bounded. A response is compressed where the
client accepts it, or asks for it where it is binary, and it is large enough to gain from it.
"""

import asyncio
import zlib
from http import HTTPStatus

from starlette.exceptions import HTTPException

from ridgeline.errors import InvalidInput, Malformed, Unsupported

LEAST_BYTES = 1024  # below, the header fields and the time cost more than the bytes saved
_IN_A_THREAD_BYTES = 1 << 16  # about a millisecond of the event loop
_LEVEL = 1  # on a local network a higher level costs more than the bytes it saves
# "deflate" is zlib's format in HTTP (RFC 9110, 8.4.1.2).
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def decompressed(data: bytes, *, encoding: str, most_bytes: int) -> bytes:
    """The body that was compressed so.

    Raises Unsupported for an unknown encoding, InvalidInput where the body is not of it, and
    HTTPException (413) where more than `most_bytes` would come out.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in _WINDOWS:
        raise Unsupported(
            f"Content-Encoding must be gzip, deflate or identity, received {encoding[:60]!r}"
        )
    return await asyncio.to_thread(_inflated, data, encoding, most_bytes)


def accepted(field: str | None, *, binary: bool = False) -> str | None:
    """The encoding for a response, by the field Accept-Encoding; None for none of ours.

    Libraries name all that they know, unasked, in which tensors gain little: a `binary` response
    is compressed only where one encoding is named, as Triton's clients do when they are told to.
    """
    if not field or (binary and "," in field):
        return None
    weights = dict(map(_weighted, field.split(",")))
    offered = [name for name in _WINDOWS if weights.get(name, 0.0) > 0]
    return max(offered, key=lambda name: weights[name], default=None)


async def compressed(data: bytes, *, encoding: str) -> bytes:
    """A body, compressed."""
    if len(data) < _IN_A_THREAD_BYTES:
        return _deflated(data, encoding)
    return await asyncio.to_thread(_deflated, data, encoding)


def _inflated(data: bytes, encoding: str, most_bytes: int) -> bytes:
    reader = zlib.decompressobj(_WINDOWS[encoding])
    try:
        body = reader.decompress(data, most_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the request is not {encoding}: {error}") from None
    if len(body) > most_bytes:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request is larger than {most_bytes} bytes when decompressed",
        )
    if not reader.eof or reader.unused_data:
        fault = "goes on after its end" if reader.eof else "is cut off"
        raise Malformed(f"the {encoding} request {fault}")
    return body


def _deflated(data: bytes, encoding: str) -> bytes:
    writer = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return writer.compress(data) + writer.flush()


def _weighted(text: str) -> tuple[str, float]:
    """`gzip;q=0.5` as ("gzip", 0.5); a weight that is no number counts as none."""
    name, _, parameter = text.partition(";")
    weight = parameter.strip().removeprefix("q=") if parameter else "1"
    try:
        return name.strip().lower(), float(weight)
    except ValueError:
        return name.strip().lower(), 0.0
