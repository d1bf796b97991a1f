"""Compressed bodies: what comes out is bounded, what is no such body is refused."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from ridgeline.errors import InvalidInput, Unsupported
from serving.protocol.http_compression import accepted, compressed, decompressed

pytestmark = pytest.mark.anyio
BODY = b"tensors " * 1000


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP ", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
)
async def test_a_body_comes_out_as_it_was(encoding, data):
    assert await decompressed(data, encoding=encoding, most_bytes=len(BODY)) == BODY


async def test_what_comes_out_is_bounded():
    bomb = gzip.compress(bytes(100_000_000), compresslevel=1)

    with pytest.raises(HTTPException, match="larger than 1000 bytes when decompressed") as refused:
        await decompressed(bomb, encoding="gzip", most_bytes=1000)
    assert refused.value.status_code == 413


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (BODY, "the request is not gzip: "),
        (b"", "the gzip request is cut off"),
        (gzip.compress(BODY, mtime=0)[:-9], "the gzip request is cut off"),
        (gzip.compress(BODY, mtime=0) + b"more", "the gzip request goes on after its end"),
    ],
)
async def test_what_is_no_such_body_is_refused(data, words):
    with pytest.raises(InvalidInput, match=words):
        await decompressed(data, encoding="gzip", most_bytes=len(BODY))


async def test_an_unknown_encoding_is_unsupported():
    with pytest.raises(Unsupported, match="must be gzip, deflate or identity, received 'br'"):
        await decompressed(BODY, encoding="br", most_bytes=len(BODY))


@pytest.mark.parametrize("data", [BODY, BODY * 100])
async def test_a_response_is_compressed_as_it_was_asked_for(data):
    assert gzip.decompress(await compressed(data, encoding="gzip")) == data
    assert zlib.decompress(await compressed(data, encoding="deflate")) == data


@pytest.mark.parametrize(
    ("field", "encoding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("br, deflate", "deflate"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=much", None),
        ("identity", None),
    ],
)
def test_the_client_says_what_it_accepts(field, encoding):
    assert accepted(field) == encoding


@pytest.mark.parametrize(
    ("field", "encoding"),
    [("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate", None), ("br", None), (None, None)],
)
def test_a_binary_response_is_compressed_where_one_encoding_is_asked_for(field, encoding):
    assert accepted(field, binary=True) == encoding


@given(st.text(max_size=50))
def test_any_field_is_understood_somehow(field):
    assert accepted(field) in (None, "gzip", "deflate")
