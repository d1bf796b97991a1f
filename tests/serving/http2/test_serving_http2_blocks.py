"""Header blocks that are remembered: never another meaning than a fresh decoder finds."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol.http2_headers import HeaderBlocks, stateless_block

FIELDS = [(b":method", b"POST"), (b":path", b"/a"), (b"x", b"1")]


def read(blocks, block):
    """As a connection reads them."""
    return blocks.known.get(block) or blocks.decode(block)


@pytest.mark.parametrize("huffman", [True, False])
def test_a_block_is_decoded_as_hpack_does(huffman):
    block = hpack.Encoder().encode(FIELDS, huffman=huffman)

    assert read(HeaderBlocks(tuple), block) == tuple(FIELDS)


def test_a_block_that_changes_nothing_is_read_once():
    heads = []
    blocks = HeaderBlocks(lambda fields: heads.append(tuple(fields)) or heads[-1])
    encoder = hpack.Encoder()
    first, second = encoder.encode(FIELDS), encoder.encode(FIELDS)
    assert first != second  # it refers to the table now

    assert [read(blocks, block) for block in (first, second, second, second)] == [tuple(FIELDS)] * 4
    assert len(heads) == 2


def test_a_change_of_the_table_forgets_what_the_blocks_meant():
    blocks, encoder = HeaderBlocks(tuple), hpack.Encoder()
    read(blocks, encoder.encode([(b"x", b"1")]))
    newest = b"\xbe"  # whatever entered the table last
    assert read(blocks, newest) == ((b"x", b"1"),)
    read(blocks, encoder.encode([(b"x", b"2")]))

    assert read(blocks, newest) == ((b"x", b"2"),)


def test_a_table_that_is_replaced_within_one_block_is_seen_as_changed():
    blocks, size = HeaderBlocks(tuple), 34 + 10
    narrow = hpack.hpack.encode_integer(size, 5)
    narrow[0] |= 0x20
    encoder = hpack.Encoder()
    read(blocks, bytes(narrow))
    for value in range(50):  # each block drives the only entry out, twice
        fields = [(b"x", b"%d" % value), (b"y", b"%d" % value)]
        encoder.header_table.maxsize = size
        encoder.header_table.resized = False
        read(blocks, encoder.encode(fields))
        assert read(blocks, b"\xbe") == ((b"y", b"%d" % value),)


def test_another_size_of_an_empty_table_is_seen_as_a_change():
    blocks = HeaderBlocks(tuple)
    closed, opened = b"\x20\x82", b"\x3f\xe1\x1f\x82"  # sizes 0 and 4096
    for block in (opened, closed, opened, closed, opened):
        assert read(blocks, block) == ((b":method", b"GET"),)
    read(blocks, b"\x40\x01x\x011")  # enters the table, where that has room

    assert read(blocks, b"\xbe") == ((b"x", b"1"),)


def test_what_is_remembered_is_bounded():
    blocks = HeaderBlocks(tuple)
    for value in range(2_000):
        read(blocks, stateless_block([(b"x", b"%d" % value)]))
        assert len(blocks.known) <= 256

    read(blocks, stateless_block([(b"x", b"y" * 5_000)]))
    assert all(len(block) < 5_000 for block in blocks.known)


def test_a_block_that_is_larger_than_admitted_is_refused():
    with pytest.raises(hpack.HPACKError):
        HeaderBlocks(tuple).decode(b"\x20" * (32 * 1024 + 1))


def test_a_stateless_block_leaves_the_table_of_any_client_alone():
    decoder = hpack.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    block = stateless_block(FIELDS)

    assert decoder.decode(block, raw=True) == FIELDS
    assert list(decoder.header_table.dynamic_entries) == []


fields = st.lists(
    st.tuples(st.sampled_from([b":path", b"x", b"y"]), st.sampled_from([b"", b"1", b"2" * 30])),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("encode"), fields, st.booleans()),
        st.tuples(st.just("resize"), st.sampled_from([0, 40, 80, 130, 4096]), st.just(False)),
        st.tuples(st.just("repeat"), st.integers(0, 30), st.just(False)),
        st.tuples(st.just("index"), st.integers(62, 68), st.just(False)),
    ),
    max_size=40,
)


@given(steps)
def test_the_memory_never_gives_a_stale_head(steps):
    ours, fresh, encoder = HeaderBlocks(tuple), hpack.Decoder(), hpack.Encoder()
    sent = [b"\x82"]
    for step, what, huffman in steps:
        if step == "resize":
            encoder.header_table_size = what
            continue
        if step == "encode":
            block = encoder.encode(what, huffman=huffman)
        elif step == "index":
            block = bytes([0x80 | what])
        else:
            block = sent[what % len(sent)]
        try:
            expected = tuple(fresh.decode(block, raw=True))
        except hpack.HPACKError:
            with pytest.raises(hpack.HPACKError):
                read(ours, block)
            return  # the connection ends
        sent.append(block)
        assert read(ours, block) == expected
