"""Our HTTP/2 beside an independent client (h2), in memory: requests, answers, how they end."""

import asyncio

import h2.events
import pytest
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol import http2
from serving.protocol.http2_frames import ErrorCode
from serving.protocol.http2_sending import Limits

pytestmark = pytest.mark.anyio
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20
SMALL = Limits(
    concurrent_streams=4,
    frame_bytes=16384,
    stream_window_bytes=65535,
    connection_window_bytes=65535,
)


async def test_a_request_arrives_whole_and_its_answer_too(server, wire):
    wire.ask(1, b"what", b" is it")
    [stream] = server.streams
    assert (stream.head, stream.body, stream.times_ended) == (tuple(wire.head), b"what is it", 1)

    stream.answer(b"it ", memoryview(b"is"))
    await wire.receive()

    response = await wire.receive_until(h2.events.ResponseReceived)
    trailers = await wire.receive_until(h2.events.TrailersReceived)
    assert list(response.headers) == [(b":status", b"200"), (b"x", b"y")]
    assert list(trailers.headers) == [(b"status", b"0")]
    assert wire.answered(1) == (b"it is", True)


async def test_the_client_learns_the_limits(wire):
    await wire.receive()

    assert wire.client.remote_settings.max_concurrent_streams == 4096
    assert wire.client.remote_settings.max_frame_size == 1 << 20
    assert wire.client.remote_settings.max_header_list_size == 32 * 1024
    assert wire.client.outbound_flow_control_window == 8 << 20
    wire.ask(1, b"")
    assert wire.client.local_flow_control_window(1) == 1 << 20


async def test_answers_of_one_turn_leave_in_one_write(server, wire):
    await wire.receive()
    for number in (1, 3, 5):
        wire.ask(number, b"x")
    writes = []
    wire.transport.write = writes.append
    for stream in server.streams:
        stream.answer(b"y")
    await asyncio.sleep(0)

    assert len(writes) == 1


async def test_a_request_that_comes_at_once_is_opened_with_its_body(server, wire):
    for number in (1, 3):  # then the client's header fields are in its table, and known
        wire.ask(number, b"x")
    wire.ask(5, b"whole")
    wire.ask(7, b"in ", b"parts")
    wire.ask(9)

    assert server.came_at_once[2:] == [b"whole", None, None]
    assert [stream.outcome[2:] for stream in server.streams[2:]] == [
        (b"whole", 1, 0),
        (b"in parts", 1, 0),
        (b"", 1, 0),
    ]


async def test_requests_refused_without_a_stream_leave_the_window_open(http2_server, http2_wire):
    server = http2_server(limits=SMALL)
    wire = http2_wire(server.connection).greet()
    for number in (1, 3):
        wire.ask(number, b"x")
    server.refuses = True
    for number in range(5, 5 + 2 * 50, 2):  # together twelve times what may be under way
        wire.ask(number, bytes(16000))
        response = await wire.receive_until(h2.events.ResponseReceived, stream=number)
        assert dict(response.headers)[b":status"] == b"415"
        await wire.receive()

    assert server.came_at_once[2:] == [bytes(16000)] * 50
    assert len(server.streams) == 2


async def test_a_request_may_end_without_a_body_or_by_trailers(server, wire):
    wire.ask(1)
    wire.client.send_headers(3, wire.head)
    wire.client.send_data(3, b"body")
    wire.client.send_headers(3, [(b"checksum", b"1")], end_stream=True)
    wire.deliver()

    assert [(stream.body, stream.times_ended) for stream in server.streams] == [
        (b"", 1),
        (b"body", 1),
    ]


async def test_padding_and_priority_are_taken_off(server, wire):
    wire.client.send_headers(1, wire.head, priority_weight=9, priority_exclusive=True)
    wire.client.send_data(1, b"some", pad_length=200)
    wire.client.prioritize(1, weight=7)
    wire.client.send_data(1, b" more", pad_length=0, end_stream=True)
    wire.deliver()

    [stream] = server.streams
    assert (stream.head, stream.body, stream.times_ended) == (tuple(wire.head), b"some more", 1)


async def test_a_header_block_may_come_in_pieces_with_padding(server, http2_wire):
    wire, frame = http2_wire(server.connection).greet_by_hand(), http2_wire.frame
    block = http2_wire.block
    flags = PADDED | PRIORITY | END_STREAM
    wire.deliver(bytes(frame(0x1, flags, 1, b"\x03" + bytes(5) + block[:5] + b"pad")))
    wire.deliver(bytes(frame(0x9, 0, 1, block[5:9])))
    assert server.streams == []
    wire.deliver(bytes(frame(0x9, END_HEADERS, 1, block[9:])))

    [stream] = server.streams
    assert (stream.head, stream.times_ended) == (tuple(wire.head), 1)


def _conversation(http2_wire):
    """Requests of every kind, and frames between them that ask for nothing."""
    frame, block = http2_wire.frame, http2_wire.block
    frames = [
        frame(0x4, 0, 0, b"\0\4\0\1\0\0"),
        frame(0x1, END_HEADERS, 1, block),
        frame(0x0, 0, 1, b"one"),
        frame(0x6, 0, 0, b"12345678"),
        frame(0x1, 0, 3, block[:7]),
        frame(0x9, END_HEADERS, 3, block[7:]),
        frame(0x0, PADDED, 3, b"\x05" + b"three" + bytes(5)),
        frame(0x0, END_STREAM, 1, b" and more"),
        frame(0x8, 0, 0, b"\0\0\1\0"),
        frame(0x0, END_STREAM, 3, b""),
        frame(0x1, END_HEADERS | END_STREAM | PRIORITY, 5, bytes(5) + block),
        frame(0xF0, 0xFF, 77, b"of a later version of the protocol"),
        frame(0x1, END_HEADERS, 7, block),
        frame(0x3, 0, 7, bytes(4)),
    ]
    return http2_wire.preface + b"".join(map(bytes, frames))


def _expected(head):
    return [
        (1, tuple(head), b"one and more", 1, 0),
        (3, tuple(head), b"three", 1, 0),
        (5, tuple(head), b"", 1, 0),
        (7, tuple(head), b"", 0, 1),
    ]


async def test_the_stream_of_bytes_may_be_cut_at_any_one_place(http2_wire, http2_server):
    data = _conversation(http2_wire)
    for place in range(len(data) + 1):
        server = http2_server()
        wire = http2_wire(server.connection)
        wire.deliver(data[:place])
        wire.deliver(data[place:])
        assert [stream.outcome for stream in server.streams] == _expected(http2_wire.head)
        assert server.connection._idle_frames == 4  # SETTINGS, PING, RST_STREAM, unknown


@given(st.lists(st.integers(0, 400)))
def test_the_stream_of_bytes_may_be_cut_anywhere(http2_wire, http2_server, places):
    async def scenario():
        data = _conversation(http2_wire)
        server = http2_server()
        wire = http2_wire(server.connection)
        ends = [*sorted(min(place, len(data)) for place in places), len(data)]
        for begin, end in zip([0, *ends], ends, strict=False):
            wire.deliver(data[begin:end])
        assert [stream.outcome for stream in server.streams] == _expected(http2_wire.head)

    asyncio.run(scenario())


async def test_a_reset_aborts_its_stream_and_a_later_answer_is_dropped(server, wire):
    wire.ask(1, b"x")
    wire.ask(3, b"x")
    await wire.receive()
    wire.client.reset_stream(1)
    wire.deliver()
    first, second = server.streams
    assert (first.times_aborted, second.times_aborted) == (1, 0)

    first.answer(b"late")
    first.refuse()
    second.answer(b"in time")
    frames = await wire.frames()
    assert {frame.number for frame in frames} == {3}


async def test_a_reset_stops_an_answer_that_is_half_sent(server, wire):
    wire.ask(1, b"x")
    server.streams[0].answer(bytes(100_000))
    await wire.receive()
    wire.client.reset_stream(1)
    wire.client.increment_flow_control_window(100_000)
    wire.deliver()

    assert server.streams[0].times_aborted == 1
    assert await wire.frames() == []


async def test_a_request_may_be_refused_before_it_has_ended(server, wire):
    await wire.receive()
    wire.client.send_headers(1, wire.head)
    wire.client.send_data(1, b"a beginning")
    wire.deliver()
    server.streams[0].refuse(reset=True)
    wire.deliver(bytes(wire.frame(0x0, END_STREAM, 1, b"the rest")))  # it has not read that yet
    events = await wire.receive()

    assert [type(event) for event in events if not isinstance(event, h2.events.WindowUpdated)] == [
        h2.events.ResponseReceived,
        h2.events.StreamEnded,
        h2.events.StreamReset,
    ]
    assert (server.streams[0].body, server.streams[0].times_ended) == (b"a beginning", 0)


async def test_more_streams_than_admitted_are_refused(http2_wire, http2_server):
    server = http2_server(SMALL)
    wire = http2_wire(server.connection).greet_by_hand()
    for number in (1, 3, 5, 7, 9):
        wire.deliver(bytes(wire.frame(0x1, END_HEADERS | END_STREAM, number, wire.block)))
    [reset] = [frame for frame in await wire.frames() if frame.kind == 0x3]
    assert (reset.number, reset.payload) == (9, bytes([0, 0, 0, ErrorCode.REFUSED_STREAM]))

    for stream in server.streams:
        stream.answer(b"y")
    wire.deliver(bytes(wire.frame(0x1, END_HEADERS | END_STREAM, 11, wire.block)))
    assert [stream.number for stream in server.streams] == [1, 3, 5, 7, 11]


async def test_leaving_answers_what_is_open_refuses_the_rest_and_closes(server, wire):
    wire.ask(1, b"x")
    wire.ask(3, b"x")
    server.connection.leave()
    wire.deliver(bytes(wire.frame(0x1, END_HEADERS | END_STREAM, 5, wire.block)))
    frames = await wire.frames()
    assert [(frame.number, frame.kind) for frame in frames[-2:]] == [(0, 0x7), (5, 0x3)]
    assert frames[-2].payload[:8] == bytes([0, 0, 0, 3, 0, 0, 0, 0])

    server.streams[0].answer(b"y")
    await wire.frames()
    assert not wire.transport.closing
    server.streams[1].answer(bytes(100_000))
    await wire.frames()
    assert not wire.transport.closing  # not all of it is sent
    wire.deliver(
        bytes(wire.frame(0x8, 0, 0, b"\0\2\0\0")) + bytes(wire.frame(0x8, 0, 3, b"\0\2\0\0"))
    )
    frames = await wire.frames()
    assert frames[-1].flags == END_HEADERS | END_STREAM
    assert wire.transport.closing
    assert len(server.streams) == 2


async def test_leaving_without_open_streams_closes_at_once(server, wire):
    server.connection.leave()
    await asyncio.sleep(0)

    assert wire.transport.closing
    assert not wire.transport.aborted


@pytest.mark.parametrize("end", ["answer", "refuse", "reset"])
async def test_a_client_that_leaves_still_gets_its_answer(server, wire, end):
    wire.ask(1, b"x")
    wire.deliver(bytes(wire.frame(0x7, 0, 0, bytes(8))))
    await wire.frames()
    assert not wire.transport.closing

    if end == "reset":
        wire.deliver(bytes(wire.frame(0x3, 0, 1, bytes(4))))
    else:
        getattr(server.streams[0], end)()
    await wire.frames()
    assert wire.transport.closing


async def test_a_lost_connection_aborts_its_open_streams(server, wire):
    wire.ask(1, b"x")
    wire.ask(3, b"x")
    server.streams[0].answer(b"y")
    server.connection.connection_lost(None)

    assert [stream.times_aborted for stream in server.streams] == [0, 1]
    assert server.connections == set()
    server.streams[1].answer(b"to nobody")


async def test_a_client_that_never_speaks_is_sent_away(server, http2_wire, monkeypatch):
    monkeypatch.setattr(http2, "_PREFACE_S", 0)
    wire = http2_wire(server.connection)
    await wire.frames()
    await asyncio.wait_for(wire.transport.wrote.wait(), 60)
    while not wire.transport.aborted:
        await asyncio.sleep(0)


async def test_a_client_that_has_spoken_may_be_silent(server, http2_wire, monkeypatch):
    monkeypatch.setattr(http2, "_PREFACE_S", 0)
    wire = http2_wire(server.connection).greet()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0, passed.set)
    await passed.wait()
    assert not wire.transport.aborted


async def test_a_client_that_does_not_read_is_not_read(server, wire):
    server.connection.pause_writing()
    assert not wire.transport.reading
    server.connection.resume_writing()
    assert wire.transport.reading


async def test_a_ping_is_answered(wire):
    await wire.receive()
    wire.client.ping(b"12345678")
    wire.deliver()

    [event] = await wire.receive()
    assert isinstance(event, h2.events.PingAckReceived)
    assert event.ping_data == b"12345678"


async def test_settings_are_acknowledged(wire):
    await wire.receive()
    wire.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5})
    wire.deliver()

    [event] = await wire.receive()
    assert isinstance(event, h2.events.SettingsAcknowledged)
