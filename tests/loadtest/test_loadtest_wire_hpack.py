"""Header blocks: the status is found however a server spells it."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.wire.hpack import MALFORMED_BLOCK, NO_STATUS, StatusReader, encode

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


@given(
    code=st.integers(0, 16),
    text=st.text(st.characters(codec="ascii", min_codepoint=32), max_size=40),
    huffman=st.booleans(),
    never_indexed=st.booleans(),
)
def test_the_status_is_found_whatever_stands_beside_it(code, text, huffman, never_indexed):
    headers = [*HEADERS, ("grpc-message", text), ("grpc-status", str(code)), ("more", text)]
    block = hpack.Encoder().encode(headers, huffman=huffman)
    if never_indexed:
        block = encode(headers, huffman=huffman)
    assert StatusReader().read(block) == code


def test_a_block_without_a_status_says_so():
    assert StatusReader().read(encode(HEADERS)) == NO_STATUS


@pytest.mark.parametrize(
    "block",
    [
        b"\xbf\xff\xff\xff",
        encode([("grpc-status", "many")]),
        encode([(":status", "502"), ("content-type", "text/html")]),
        hpack.Encoder().encode([("x", "y")])[:1] + b"\xff",
    ],
)
def test_what_is_no_answer_of_grpc_is_told_apart(block):
    assert StatusReader().read(block) == MALFORMED_BLOCK


def test_a_status_that_no_code_has_is_read_all_the_same():
    assert StatusReader().read(encode([("grpc-status", "77")])) == 77


def test_a_field_of_a_dynamic_table_is_refused_since_we_asked_for_none():
    encoder = hpack.Encoder()
    encoder.encode([("x-made-up", "value")])
    assert StatusReader().read(encoder.encode([("x-made-up", "value")])) == MALFORMED_BLOCK


def test_equal_headers_are_equal_bytes():
    assert encode(HEADERS) == encode(HEADERS)
    decoder = hpack.Decoder()
    decoder.decode(encode(HEADERS))
    assert len(decoder.header_table.dynamic_entries) == 0
