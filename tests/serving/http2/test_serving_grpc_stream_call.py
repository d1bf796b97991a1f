"""Streaming calls on our own HTTP/2, in memory: windows in both directions, and bad input."""

import asyncio
import gzip

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from h2.events import ResponseReceived, StreamReset, WindowUpdated

from serving.dataplane import DataPlane
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_method import StreamMethod
from serving.protocol.http2_headers import stateless_block
from serving.registry import Registry

pytestmark = pytest.mark.anyio
LIMIT = 3 * 2**20
WINDOW = 2**20  # of a stream, as a client sees it
PATH = "/test.Test/Stream"
OK, UNIMPLEMENTED, INTERNAL, EXHAUSTED, LATE = (
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
)


class Echo:
    """Answers each message with itself, `times` over; while the gate is shut it takes none."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.taken, self.made, self.times = 0, 0, 1
        self.closed = asyncio.Event()
        self.contexts = []

    async def answer(self, requests, context):
        self.contexts.append(context)
        try:
            await self.gate.wait()
            async for request in requests:
                self.taken += 1
                for _ in range(self.times):
                    self.made += 1
                    yield request
                await self.gate.wait()
        finally:
            self.closed.set()


@pytest.fixture
async def echo():
    return Echo()


@pytest.fixture
def service(settings, echo, monkeypatch):
    method = StreamMethod(BytesValue, echo.answer)
    monkeypatch.setattr("serving.protocol.grpc_http2.methods", lambda _: {PATH: method})
    return GrpcService(DataPlane(Registry(settings)), max_request_bytes=LIMIT)


@pytest.fixture
async def client(service, grpc_wire):
    return grpc_wire(service)


def _data(size, *, fill=b"x"):
    return BytesValue(value=fill * size).SerializeToString()


async def _settle(wire):
    """Let everything happen that can happen without further input."""
    for _ in range(50):
        await wire.receive()


async def _until(wire, condition):
    while not condition():
        await wire.receive()


async def test_a_message_may_come_in_any_pieces(client):
    data = client.framed(_data(300)) + client.framed(_data(0)) + client.framed(_data(5))

    for size in (1, 2, 7, len(data)):
        pieces = [data[place : place + size] for place in range(0, len(data), size)]
        answer = await client.call(PATH, *pieces)
        assert (answer.code, answer.body) == (OK, data)


async def test_the_head_of_the_answer_comes_before_the_first_request(client):
    number = client.send(PATH, ends=False)

    await client.wire.receive_until(ResponseReceived, stream=number)

    assert client.wire.answered(number) == (b"", False)


async def test_the_context_tells_metadata_and_deadline(client, echo):
    await client.call(PATH, headers=[(b"grpc-timeout", b"1H"), (b"team", b"vision")])
    await client.call(PATH)

    assert echo.contexts[0].metadata["team"] == "vision"
    assert echo.contexts[0].deadline_ns is not None
    assert echo.contexts[1].deadline_ns is None


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"\0\0\0\0\5xxx", INTERNAL, "cut off: 8 bytes"),
        (b"\0\0", INTERNAL, "cut off: 2 bytes"),
        (b"\0" + (LIMIT + 1).to_bytes(4, "big"), EXHAUSTED, f"larger than {LIMIT} bytes"),
        (b"\0\0\0\0\4\x0a\xff\xff\xff", INTERNAL, "cannot be parsed"),
        (b"\1\0\0\0\4oops", UNIMPLEMENTED, "grpc-encoding must be gzip or deflate"),
    ],
)
async def test_a_malformed_message_ends_the_call_behind_those_before_it(client, body, code, words):
    good = client.framed(_data(3))

    answer = await client.call(PATH, good + body)

    assert answer.code == code
    assert words in answer.text
    assert answer.body == good or code == EXHAUSTED


async def test_compressed_messages_are_read(client):
    packed = gzip.compress(_data(50_000))

    answer = await client.call(
        PATH, client.framed(packed, flag=1), headers=[(b"grpc-encoding", b"gzip")]
    )

    assert answer.body == client.framed(_data(50_000))


async def test_a_message_too_large_is_refused_when_it_is_announced(client):
    prefix = b"\0" + (LIMIT + 1).to_bytes(4, "big")

    number = client.send(PATH, prefix, ends=False)

    assert (await client.answer(number)).code == EXHAUSTED
    await client.wire.receive_until(StreamReset, stream=number)  # it need not send the rest
    client.wire.deliver(bytes(client.wire.frame(0x0, 0, number, b"more")))  # it was under way
    assert not client.wire.transport.closing


async def test_a_call_that_is_answered_early_is_reset(client, service):
    async def refuse(requests, _context):
        raise NotImplementedError
        yield await anext(requests)

    service._streaming[PATH] = StreamMethod(BytesValue, refuse)
    number = client.send(PATH, ends=False)

    answer = await client.answer(number)

    assert answer.code == INTERNAL
    assert "NotImplementedError" in answer.text
    await client.wire.receive_until(StreamReset, stream=number)


async def test_a_message_larger_than_the_window_comes_through(client, echo):
    echo.times = 0
    data = client.framed(_data(LIMIT - 100))
    number = client.send(PATH, ends=False)

    await _send_all(client, number, data)
    client.wire.client.end_stream(number)
    client.wire.deliver()

    answer = await client.answer(number)
    assert (answer.code, echo.taken) == (OK, 1)


async def _send_all(client, number, data, *, most_turns=10_000):
    """Send as a proper client does, as far as windows admit; returns how much went."""
    h2 = client.wire.client
    sent = 0
    for _ in range(most_turns):
        size = min(len(data) - sent, h2.local_flow_control_window(number), 16384)
        if size:
            h2.send_data(number, data[sent : sent + size])
            sent += size
        elif sent == len(data):
            break
        client.wire.deliver()
        await client.wire.receive()
    return sent


async def test_what_nobody_takes_stops_the_client(client, echo):
    echo.times = 0
    echo.gate.clear()
    number = client.send(PATH, ends=False)
    data = client.framed(_data(1000)) * 10_000

    sent = await _send_all(client, number, data, most_turns=3000)

    assert WINDOW <= sent <= 2 * WINDOW

    echo.gate.set()
    await _send_all(client, number, data[sent:])
    await _until(client.wire, lambda: echo.taken == 10_000)


async def test_other_streams_are_answered_while_one_is_stopped(client, echo):
    echo.gate.clear()
    number = client.send(PATH, ends=False)
    await _send_all(client, number, client.framed(_data(1000)) * 10_000, most_turns=3000)
    client.wire.client.reset_stream(number)
    echo.gate.set()

    assert (await client.call(PATH, client.framed(b""))).code == OK


async def test_a_client_that_does_not_read_is_not_written_to(service, http2_wire, echo):
    echo.times = 1_000
    wire = http2_wire(service.connection())
    wire.greet_by_hand()
    block = stateless_block(
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", PATH.encode()),
            (b"content-type", b"application/grpc"),
        ]
    )
    wire.deliver(bytes(wire.frame(0x1, 0x4, 1, block)))
    wire.deliver(
        bytes(wire.frame(0x0, 0x1, 1, b"\0" + len(_data(1000)).to_bytes(4, "big") + _data(1000)))
    )

    for _ in range(200):
        await asyncio.sleep(0)
    before = echo.made
    wire.deliver(bytes(wire.frame(0x8, 0, 0, (2**20).to_bytes(4, "big"))))
    wire.deliver(bytes(wire.frame(0x8, 0, 1, (10_000).to_bytes(4, "big"))))
    for _ in range(200):
        await asyncio.sleep(0)

    assert before == 66  # 65,535 bytes of its windows, in messages of 1008
    assert echo.made - before == 9  # of 10,000 more bytes


async def test_a_client_whose_socket_is_full_is_not_written_to(client, echo):
    echo.times = 1_000_000
    client.wire.connection.pause_writing()
    number = client.send(PATH, client.framed(_data(1000)))
    await _settle(client.wire)
    made = echo.made

    client.wire.connection.resume_writing()
    await _settle(client.wire)

    assert made == 1
    assert echo.made > made
    client.wire.client.reset_stream(number)
    client.wire.deliver()
    await _until(client.wire, echo.closed.is_set)


async def test_a_client_that_resets_ends_the_work(client, echo):
    echo.gate.clear()
    number = client.send(PATH, ends=False)
    await client.wire.receive()
    client.wire.client.reset_stream(number)
    client.wire.deliver()

    await _until(client.wire, echo.closed.is_set)


async def test_a_connection_that_is_lost_ends_the_work(client, echo, service):
    echo.gate.clear()
    client.send(PATH, ends=False)
    await client.wire.receive()

    client.wire.connection.connection_lost(None)

    await echo.closed.wait()
    while service.tasks:
        await asyncio.sleep(0)


async def test_a_deadline_that_passes_ends_the_call(client, echo):
    echo.gate.clear()

    answer = await client.call(PATH, headers=[(b"grpc-timeout", b"1m")], ends=False)

    assert (answer.code, "deadline" in answer.text) == (LATE, True)
    assert echo.closed.is_set()


async def test_a_connection_that_leaves_waits_for_its_streams(client, echo):
    echo.gate.clear()
    number = client.send(PATH, client.framed(_data(3)))
    await client.wire.receive()

    client.wire.connection.leave()
    await client.wire.frames()
    assert not client.wire.transport.closing
    echo.gate.set()
    await echo.closed.wait()
    kinds = [frame.kind for frame in await client.wire.frames() if frame.number == number]

    assert kinds == [0x0, 0x1]
    assert client.wire.transport.closing


async def test_windows_are_told_once_what_came_was_taken(client, echo):
    echo.times = 0
    number = client.send(PATH, ends=False)

    await _send_all(client, number, client.framed(_data(1000)) * 600)

    await client.wire.receive_until(WindowUpdated, stream=number)
    assert echo.taken == 600


async def test_empty_messages_that_nobody_takes_are_bounded_as_well(client, service, echo):
    echo.gate.clear()
    number = client.send(PATH, ends=False)
    await _settle(client.wire)
    empty = client.framed(b"") * 3_000
    sent = 0
    while client.wire.client.local_flow_control_window(number) >= len(empty) and sent < 2**21:
        client.wire.client.send_data(number, empty[:15_000])
        client.wire.deliver()
        await client.wire.receive()
        sent += 15_000

    assert sent < 2**21
    echo.gate.set()
    assert (await client.answer(number)).code == EXHAUSTED
    assert service.uploads.held_bytes == 0
