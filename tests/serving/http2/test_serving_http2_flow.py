"""Flow control and settings of our HTTP/2, beside an independent client (h2), in memory."""

import asyncio

import h2.events
import pytest
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

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


async def test_an_answer_larger_than_the_windows_is_sent_on_as_they_widen(server, wire):
    wire.ask(1, b"x")
    wire.ask(3, b"x")
    body = bytes(range(256)) * 1000
    server.streams[0].answer(body[:100_000], body[100_000:])
    server.streams[1].answer(b"small")
    events = await wire.receive()
    assert wire.answered(1, among=events) == (body[:65535], False)
    assert wire.answered(3, among=events) == (b"", False)

    while not (wire.answered(1)[1] and wire.answered(3)[1]):
        got = [e for e in wire.events if isinstance(e, h2.events.DataReceived)]
        assert got
        for event in got:
            if not getattr(event, "seen", False):
                event.seen = True
                wire.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        wire.deliver()
        await wire.receive()

    assert wire.answered(1) == (body, True)
    assert wire.answered(3) == (b"small", True)
    assert server.connection._streams == {}


async def test_a_wider_window_of_the_connection_alone_is_not_enough(server, http2_wire):
    wire = http2_wire(server.connection, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10}).greet()
    wire.ask(1, b"x")
    server.streams[0].answer(b"0123456789abcdef")
    assert wire.answered(1, among=await wire.receive()) == (b"0123456789", False)

    wire.client.increment_flow_control_window(1000)
    wire.deliver()
    assert wire.answered(1, among=await wire.receive()) == (b"", False)

    wire.client.increment_flow_control_window(2, stream_id=1)
    wire.deliver()
    assert wire.answered(1, among=await wire.receive()) == (b"ab", False)

    wire.client.increment_flow_control_window(100, stream_id=1)
    wire.deliver()
    assert wire.answered(1, among=await wire.receive()) == (b"cdef", True)


async def test_settings_that_change_the_window_count_for_open_streams(server, http2_wire):
    wire = http2_wire(server.connection, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10}).greet()
    wire.ask(1, b"x")
    stream = server.streams[0]
    stream.answer(b"0123456789abcdef")
    await wire.receive()

    wire.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 4})  # it owes 6 bytes now
    wire.deliver()
    assert wire.answered(1, among=await wire.receive()) == (b"", False)
    assert stream.send_window == -6

    wire.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 12})
    wire.deliver()
    assert wire.answered(1, among=await wire.receive()) == (b"ab", False)

    wire.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    wire.deliver()
    assert wire.answered(1, among=await wire.receive()) == (b"cdef", True)

    wire.ask(3, b"x")
    server.streams[1].answer(bytes(1001))
    assert wire.answered(3, among=await wire.receive()) == (bytes(1000), False)


async def test_an_answer_comes_in_frames_as_large_as_the_client_admits(server, http2_wire):
    wire = http2_wire(server.connection, settings={SettingCodes.MAX_FRAME_SIZE: 20_000}).greet()
    wire.ask(1, b"x")
    server.streams[0].answer(bytes(50_000))
    frames = await wire.frames()

    sizes = [len(frame.payload) for frame in frames if frame.kind == 0]
    assert sizes == [20_000, 20_000, 10_000]


async def test_a_client_that_keeps_no_header_table_understands_the_answer(server, http2_wire):
    wire = http2_wire(server.connection, settings={SettingCodes.HEADER_TABLE_SIZE: 0}).greet()
    wire.client.decoder.max_allowed_table_size = 0  # now it insists
    await wire.receive()
    for place, number in enumerate((1, 3)):
        wire.ask(number, b"x")
        server.streams[place].answer(b"y")
        await wire.receive()

        assert wire.answered(number) == (b"y", True)


async def test_the_windows_of_a_client_are_replenished_as_it_sends(http2_wire, http2_server):
    server = http2_server(SMALL)
    wire = http2_wire(server.connection).greet()
    await wire.receive()
    wire.client.send_headers(1, wire.head)
    for _ in range(40):
        wire.client.send_data(1, bytes(16_000), pad_length=200)
        wire.deliver()
        await wire.receive()
    wire.client.end_stream(1)
    wire.deliver()

    assert len(server.streams[0].body) == 40 * 16_000
    assert server.streams[0].times_ended == 1


async def test_data_for_streams_that_were_answered_widens_the_connection(http2_wire, http2_server):
    server = http2_server(SMALL)
    wire = http2_wire(server.connection).greet()
    await wire.receive()
    for number in range(1, 21, 2):
        wire.client.send_headers(number, wire.head)
        wire.deliver()
        server.streams[-1].refuse()
        for _ in range(3):
            wire.client.send_data(number, bytes(16_384))
        wire.client.end_stream(number)
        wire.deliver()
        await wire.receive()

    assert all(stream.chunks == [] for stream in server.streams)
    assert wire.client.outbound_flow_control_window >= 32767


@pytest.mark.parametrize("end", [0, END_STREAM])
@pytest.mark.parametrize("kind", ["stream", "connection"])
async def test_more_data_than_a_window_ends_the_connection(http2_wire, kind, end, http2_server):
    wide = {"connection_window_bytes": 1 << 20} if kind == "stream" else {}
    wide = wide or {"stream_window_bytes": 1 << 20}
    server = http2_server(Limits(**{**vars(SMALL), **wide, "frame_bytes": 1 << 20}))
    wire = http2_wire(server.connection).greet_by_hand()
    wire.deliver(bytes(http2_wire.frame(0x1, END_HEADERS, 1, http2_wire.block)))
    wire.deliver(bytes(http2_wire.frame(0x0, end, 1, bytes(65_536))))

    last = (await wire.frames())[-1]
    assert (last.kind, last.payload[4:8]) == (0x7, bytes([0, 0, 0, ErrorCode.FLOW_CONTROL_ERROR]))
    assert wire.transport.closing


def test_limits_that_no_client_could_keep_are_refused():
    for nonsense in (
        {"stream_window_bytes": 65_534},  # what is in force until a client has read ours
        {"connection_window_bytes": 65_534},
        {"frame_bytes": 16_383},
        {"frame_bytes": 1 << 24},
        {"concurrent_streams": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(nonsense))):
            Limits(**nonsense)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(20_000, 200_000)), max_size=6))
def test_answers_come_whole_whatever_the_windows(http2_wire, http2_server, sizes_and_windows):
    async def scenario():
        server = http2_server()
        wire = http2_wire(server.connection).greet()
        await wire.receive()
        numbers = [1 + 2 * place for place in range(len(sizes_and_windows))]
        bodies = [
            bytes([number]) * size
            for number, (size, _) in zip(numbers, sizes_and_windows, strict=True)
        ]
        for number, body in zip(numbers, bodies, strict=True):
            wire.ask(number, b"x")
            server.streams[-1].answer(body)
        await wire.receive()
        while not all(wire.answered(number)[1] for number in numbers):
            for number, (_, window) in zip(numbers, sizes_and_windows, strict=True):
                wire.client.increment_flow_control_window(window)
                if not wire.answered(number)[1]:
                    wire.client.increment_flow_control_window(window, stream_id=number)
            wire.deliver()
            await wire.receive()
        assert [wire.answered(number)[0] for number in numbers] == bodies

    asyncio.run(scenario())
