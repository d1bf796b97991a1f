"""What a broken or hostile client sends: always an answer with the right code, never an error."""

import asyncio

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.protocol.http2_frames import ErrorCode
from serving.protocol.http2_sending import Limits

pytestmark = pytest.mark.anyio
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = range(6)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(6, 10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
BLOCK = hpack.Encoder().encode([(b":method", b"POST")])
PROTOCOL, FLOW = ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR
SIZE, CLOSED = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED
CALM, COMPRESSION = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.COMPRESSION_ERROR
OPEN_3 = (HEADERS, END_HEADERS, 3, BLOCK)
WHOLE_3 = (HEADERS, END_HEADERS | END_STREAM, 3, BLOCK)


async def verdict(wire):
    """The code of the GOAWAY with which the connection was closed."""
    last = (await wire.frames())[-1]
    assert last.kind == GOAWAY
    assert wire.transport.closing
    return ErrorCode(int.from_bytes(last.payload[4:8], "big"))


def setting(key, value):
    return key.to_bytes(2, "big") + value.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(DATA, 0, 0, b"x")], PROTOCOL),
        ([(DATA, 0, 1, b"x")], PROTOCOL),
        ([(DATA, 0, 1, b"")], PROTOCOL),
        ([OPEN_3, (DATA, 0, 2, b"x")], PROTOCOL),
        ([OPEN_3, (DATA, PADDED, 3, b"")], PROTOCOL),
        ([OPEN_3, (DATA, PADDED, 3, b"\4pad")], PROTOCOL),
        ([OPEN_3, (DATA, 0, 3, bytes(32_769))], SIZE),
        ([WHOLE_3, (DATA, 0, 3, b"more")], CLOSED),
        ([WHOLE_3, (DATA, 0, 3, b"")], CLOSED),
        ([WHOLE_3, (DATA, PADDED, 3, b"\1more")], CLOSED),
        ([OPEN_3, (DATA, END_STREAM, 3, b"all"), (DATA, END_STREAM, 3, b"more")], CLOSED),
        ([OPEN_3, (DATA, END_STREAM, 3, b"all"), WHOLE_3], CLOSED),
        ([WHOLE_3, WHOLE_3], CLOSED),
        ([OPEN_3, OPEN_3], PROTOCOL),  # trailers that do not end the stream
        ([(HEADERS, END_HEADERS, 0, BLOCK)], PROTOCOL),
        ([(HEADERS, 0, 0, BLOCK)], PROTOCOL),  # not only when its rest has come
        ([(HEADERS, END_HEADERS, 2, BLOCK)], PROTOCOL),
        ([OPEN_3, (HEADERS, END_HEADERS, 2, BLOCK)], PROTOCOL),
        ([(HEADERS, END_HEADERS | PADDED, 1, b"\x09" + BLOCK)], PROTOCOL),
        ([(HEADERS, END_HEADERS | WITH_PRIORITY, 1, bytes(4))], SIZE),
        ([(HEADERS, END_HEADERS, 1, bytes(32_769))], SIZE),
        ([(HEADERS, END_HEADERS, 1, b"\xbe")], COMPRESSION),  # index 62 of an empty table
        ([(HEADERS, END_HEADERS, 1, b"\x80")], COMPRESSION),
        ([(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\x0f")], COMPRESSION),
        ([(HEADERS, END_HEADERS, 1, b"\x00\x81\x00\x00")], COMPRESSION),
        ([(HEADERS, END_HEADERS, 1, b"\x00\x01a\x7f\xff")], COMPRESSION),
        ([(HEADERS, END_HEADERS, 1, b"\x83" * 2_000)], COMPRESSION),  # small, but not unpacked
        ([(PRIORITY, 0, 0, bytes(5))], PROTOCOL),
        ([(PRIORITY, 0, 1, bytes(4))], SIZE),
        ([(RST_STREAM, 0, 0, bytes(4))], PROTOCOL),
        ([(RST_STREAM, 0, 1, bytes(4))], PROTOCOL),
        ([OPEN_3, (RST_STREAM, 0, 3, bytes(3))], SIZE),
        ([(SETTINGS, 0, 1, b"")], PROTOCOL),
        ([(SETTINGS, 0, 0, bytes(5))], SIZE),
        ([(SETTINGS, ACK, 0, bytes(6))], SIZE),
        ([(SETTINGS, 0, 0, setting(2, 2))], PROTOCOL),
        ([(SETTINGS, 0, 0, setting(4, 1 << 31))], FLOW),
        ([(SETTINGS, 0, 0, setting(5, 16_383))], PROTOCOL),
        ([(SETTINGS, 0, 0, setting(5, 1 << 24))], PROTOCOL),
        ([(PUSH_PROMISE, 0, 1, bytes(4))], PROTOCOL),
        ([(PING, 0, 1, bytes(8))], PROTOCOL),
        ([(PING, 0, 0, bytes(7))], SIZE),
        ([(GOAWAY, 0, 1, bytes(8))], PROTOCOL),
        ([(GOAWAY, 0, 0, bytes(7))], SIZE),
        ([(WINDOW_UPDATE, 0, 0, bytes(3))], SIZE),
        ([(WINDOW_UPDATE, 0, 0, bytes(4))], PROTOCOL),
        ([(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")], FLOW),
        ([(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")], PROTOCOL),
        ([OPEN_3, (WINDOW_UPDATE, 0, 3, bytes(4))], PROTOCOL),
        ([OPEN_3, (WINDOW_UPDATE, 0, 3, b"\x7f\xff\xff\xff")], FLOW),
        (
            [OPEN_3, (WINDOW_UPDATE, 0, 3, b"\x7f\0\0\0"), (SETTINGS, 0, 0, setting(4, 2**31 - 1))],
            FLOW,
        ),
        ([(CONTINUATION, END_HEADERS, 1, BLOCK)], PROTOCOL),
        ([(HEADERS, 0, 1, BLOCK), (CONTINUATION, END_HEADERS, 3, BLOCK)], PROTOCOL),
        ([(HEADERS, 0, 1, BLOCK), (HEADERS, END_HEADERS, 3, BLOCK)], PROTOCOL),
        ([(HEADERS, 0, 1, BLOCK), (DATA, 0, 1, b"x")], PROTOCOL),
        ([(HEADERS, 0, 1, BLOCK), (PING, 0, 0, bytes(8))], PROTOCOL),
        ([(HEADERS, 0, 1, b""), *[(CONTINUATION, 0, 1, bytes(16_000))] * 3], CALM),
        ([(0xF0, 0, 0, bytes(32_769))], SIZE),
    ],
)
async def test_a_fault_closes_the_connection_and_says_why(http2_wire, http2_server, frames, code):
    server = http2_server(Limits(frame_bytes=32_768))
    wire = http2_wire(server.connection).greet_by_hand()
    wire.deliver(b"".join(bytes(wire.frame(*fields)) for fields in frames))

    assert await verdict(wire) == code
    assert all(stream.times_ended <= 1 for stream in server.streams)
    server.connection.connection_lost(None)
    assert all(stream.times_aborted == 1 for stream in server.streams)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 8, PING, 0, 0, 0, 0, 0]) + bytes(8),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]),
    ],
)
async def test_whoever_does_not_speak_http2_is_sent_away(server, http2_wire, data):
    wire = http2_wire(server.connection)
    wire.deliver(data)

    assert await verdict(wire) == PROTOCOL


async def test_what_is_sent_to_streams_that_have_ended_is_let_pass(server, hand):
    """It may have been under way already."""
    hand.deliver(bytes(hand.frame(*OPEN_3)))
    server.streams[0].refuse(reset=True)
    for fields in (
        (DATA, 0, 3, b"x"),
        (DATA, PADDED, 3, b"\2xyz"),
        (DATA, END_STREAM, 3, b"x"),
        (HEADERS, END_HEADERS | END_STREAM, 3, BLOCK),
        (WINDOW_UPDATE, 0, 3, b"\0\0\0\1"),
        (RST_STREAM, 0, 3, bytes(4)),
        (PRIORITY, 0, 3, bytes(5)),
    ):
        hand.deliver(bytes(hand.frame(*fields)))
    await hand.frames()

    assert not hand.transport.closing
    assert (server.streams[0].body, server.streams[0].times_ended) == (b"", 0)


async def test_the_reserved_bit_of_a_stream_number_means_nothing(server, hand):
    hand.deliver(bytes(hand.frame(HEADERS, END_HEADERS, 1 | 1 << 31, BLOCK)))
    hand.deliver(bytes(hand.frame(DATA, END_STREAM, 1 | 1 << 31, b"x")))

    assert [stream.outcome[2:] for stream in server.streams] == [(b"x", 1, 0)]
    assert server.streams[0].number == 1


FLOODS = {
    "pings": [(PING, 0, 0, bytes(8))],
    "answers to pings": [(PING, ACK, 0, bytes(8))],
    "settings": [(SETTINGS, 0, 0, b"")],
    "answers to settings": [(SETTINGS, ACK, 0, b"")],
    "empty data": [(DATA, 0, 1, b"")],
    "empty data for an ended stream": [(DATA, 0, 3, b"")],
    "padding": [(DATA, PADDED, 1, b"\0")],
    "priorities": [(PRIORITY, 0, 1, bytes(5))],
    "unknown frames": [(0xF0, 0, 0, b"")],
    "windows of ended streams": [(WINDOW_UPDATE, 0, 3, b"\0\0\0\1")],
    "windows that nobody waits for": [(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")],
    "resets of ended streams": [(RST_STREAM, 0, 3, bytes(4))],
    "trailers of ended streams": [(HEADERS, END_HEADERS | END_STREAM, 3, BLOCK)],
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_frames_that_ask_for_nothing_ends_the_connection(server, hand, flood):
    hand.deliver(bytes(hand.frame(HEADERS, END_HEADERS, 1, BLOCK)))
    hand.deliver(bytes(hand.frame(*OPEN_3)) + bytes(hand.frame(RST_STREAM, 0, 3, bytes(4))))
    frames = b"".join(bytes(hand.frame(*fields)) for fields in FLOODS[flood])
    for _ in range(11):
        hand.deliver(frames * 1_000)

    assert await verdict(hand) == CALM
    assert len(server.streams) == 2


@pytest.mark.parametrize("flags", [0, END_STREAM])
async def test_opening_streams_only_to_reset_them_ends_the_connection(server, hand, flags):
    for number in range(1, 21_000, 2):
        hand.deliver(
            bytes(hand.frame(HEADERS, END_HEADERS | flags, number, BLOCK))
            + bytes(hand.frame(RST_STREAM, 0, number, bytes(4)))
        )

    assert await verdict(hand) == CALM
    server.connection.connection_lost(None)
    assert all(stream.times_aborted == 1 for stream in server.streams)


async def test_opening_more_streams_than_admitted_for_ever_ends_the_connection(server, hand):
    for number in range(1, 30_000, 2):
        hand.deliver(bytes(hand.frame(HEADERS, END_HEADERS | END_STREAM, number, BLOCK)))

    assert await verdict(hand) == CALM
    assert len(server.streams) == Limits().concurrent_streams


@pytest.mark.parametrize("end", ["answer", "refuse"])
async def test_frames_between_requests_that_are_answered_are_no_flood(server, hand, end):
    for number in range(1, 41, 2):
        hand.deliver(bytes(hand.frame(PING, 0, 0, bytes(8))) * 900)
        hand.deliver(bytes(hand.frame(HEADERS, END_HEADERS | END_STREAM, number, BLOCK)))
        getattr(server.streams[-1], end)()
        await hand.frames()

    assert not hand.transport.closing


async def test_a_header_in_the_smallest_pieces_costs_no_more_than_its_bytes(server, hand):
    pieces = bytes(hand.frame(CONTINUATION, 0, 1, b"\x82"))
    hand.deliver(bytes(hand.frame(HEADERS, 0, 1, b"")))
    hand.deliver(pieces * 32_768)
    assert not hand.transport.closing
    hand.deliver(pieces)

    assert await verdict(hand) == CALM
    assert server.streams == []


frame_fields = st.tuples(
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 0x20, 0x25, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 7, 1 << 31, 2**32 - 1]),
    st.one_of(st.binary(max_size=40), st.just(BLOCK), st.just(bytes(4)), st.just(b"\0\0\1\0")),
)


@settings(max_examples=300)
@given(st.lists(st.one_of(frame_fields, st.binary(max_size=30)), max_size=30), st.booleans())
def test_garbage_never_raises(http2_wire, http2_server, parts, cut):
    async def scenario():
        server = http2_server()
        wire = http2_wire(server.connection).greet_by_hand()
        for part in parts:
            data = part if isinstance(part, bytes) else bytes(wire.frame(*part))
            for piece in [data[:7], data[7:]] if cut else [data]:
                wire.deliver(piece)
            for stream in server.streams:
                if stream.times_ended and not stream.times_aborted:
                    stream.answer(b"y")
        await wire.frames()
        server.connection.connection_lost(None)
        assert all(stream.times_ended <= 1 for stream in server.streams)
        assert all(stream.times_aborted <= 1 for stream in server.streams)

    asyncio.run(scenario())


@given(st.binary())
def test_garbage_instead_of_the_preface_never_raises(http2_wire, http2_server, data):
    async def scenario():
        wire = http2_wire(http2_server().connection)
        wire.deliver(data)
        await wire.frames()

    asyncio.run(scenario())
