"""gRPC on our own HTTP/2, in memory: what real clients do not send, and clients that go away."""

import asyncio
import time
import zlib

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from ridgeline.errors import Overloaded
from serving.dataplane import DataPlane
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_method import INFER
from serving.registry import Registry

pytestmark = pytest.mark.anyio
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
LIMIT = 1_000


@pytest.fixture
async def registry(repository, models, settings):
    repository.add("identity", models.identity())
    registry = Registry(settings)
    await registry.load()
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def dataplane(registry):
    return DataPlane(registry)


@pytest.fixture
def service(dataplane):
    return GrpcService(dataplane, max_request_bytes=LIMIT)


@pytest.fixture
async def client(service, grpc_wire):
    return grpc_wire(service)


def _request(**fields):
    request = service_pb2.ModelInferRequest(**{"model_name": "identity", **fields})
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([3, 4], np.float32).tobytes())
    return request.SerializeToString()


def framed(data, *, flag=0):
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("path", "parts", "headers", "code", "words"),
    [
        ("/no/Such", [framed(b"")], [], UNIMPLEMENTED, "no method '/no/Such'"),
        (f"/{'x' * 5_000}", [framed(b"")], [], UNIMPLEMENTED, "no method '/xxx"),
        (INFER, [], [], INTERNAL, "expected one message, received 0 bytes"),
        (INFER, [b"\0\0\0"], [], INTERNAL, "expected one message, received 3 bytes"),
        (INFER, [b"\0\0\0\0\7abc"], [], INTERNAL, "announces 7 bytes, 3 came"),
        (INFER, [framed(b"a") + framed(b"b")], [], INTERNAL, "announces 1 bytes, 7 came"),
        (INFER, [framed(b"\xff\xff")], [], INTERNAL, "cannot be parsed"),
        (INFER, [framed(b"a", flag=1)], [], UNIMPLEMENTED, "must be gzip or deflate"),
        (
            INFER,
            [framed(b"no gzip at all", flag=1)],
            [(b"grpc-encoding", b"gzip")],
            INTERNAL,
            "the message is not b'gzip'",
        ),
        (INFER, [framed(b"")], [(b"grpc-timeout", b"5")], INTERNAL, "grpc-timeout is malformed"),
        (INFER, [framed(b"")], [(b"grpc-timeout", b"xS")], INTERNAL, "grpc-timeout is malformed"),
        (INFER, [framed(b"")], [(b"grpc-timeout", b"S")], INTERNAL, "grpc-timeout is malformed"),
        (INFER, [framed(b"")], [(b"grpc-timeout", b"9" * 9 + b"S")], INTERNAL, "is malformed"),
    ],
)
async def test_what_is_no_call_is_refused_with_its_reason(
    client, path, parts, headers, code, words
):
    answer = await client.call(path, *parts, headers=headers)

    assert (answer.http, answer.code, answer.body) == (200, code, b"")
    assert words in answer.text
    assert len(answer.text) < LIMIT


@pytest.mark.parametrize(
    "content_type", [b"application/json", b"application/grpcx", b"application/grpc-web", b""]
)
async def test_what_is_not_grpc_is_told_in_the_terms_of_http(client, content_type):
    answer = await client.call(INFER, framed(_request()), content_type=content_type)

    assert (answer.http, answer.code) == (415, None)


@pytest.mark.parametrize("kind", [b"application/grpc+proto", b"application/grpc;charset=utf-8"])
async def test_grpc_may_name_its_encoding(client, kind):
    assert (await client.call(INFER, framed(_request()), content_type=kind)).code == OK


@pytest.mark.parametrize("times", [1, 2])  # the second is of a known kind
async def test_a_known_body_does_not_make_a_call_of_what_is_none(client, times):
    for _ in range(times):
        assert (await client.call(INFER, framed(_request()))).code == OK

    late = [(b"grpc-timeout", b"?")]
    assert (await client.call(INFER, framed(_request()), headers=late)).code == INTERNAL
    assert (await client.call(INFER, framed(_request()), content_type=b"text/html")).http == 415
    assert (await client.call("/no/Such", framed(_request()))).code == UNIMPLEMENTED


async def test_an_answer_is_framed_as_grpc_asks(client):
    answer = await client.call(INFER, framed(_request(id="7")))

    assert answer.metadata[b"content-type"] == b"application/grpc"
    response = service_pb2.ModelInferResponse.FromString(answer.message)
    assert (response.id, response.raw_output_contents[0]) == (
        "7",
        np.array([3, 4], np.float32).tobytes(),
    )


@pytest.mark.parametrize("size", [LIMIT + 1, 100_000])
async def test_a_message_over_the_limit_is_refused_before_it_is_whole(client, size):
    body = framed(b"x" * size)
    parts = [body[start : start + 500] for start in range(0, LIMIT + 500, 500)]
    number = client.send(INFER, *parts, ends=False)
    answer = await client.answer(number)

    assert answer.code == EXHAUSTED
    assert f"larger than {LIMIT} bytes" in answer.text
    assert (await client.call(INFER, framed(_request()))).code == OK


async def test_a_message_as_large_as_the_limit_is_read(client):
    answer = await client.call(INFER, framed(b"\xff" * LIMIT))

    assert "cannot be parsed" in answer.text


@pytest.mark.parametrize(("encoding", "window"), [("gzip", 31), ("deflate", 15)])
async def test_a_compressed_message_is_read_and_its_real_size_is_bounded(client, encoding, window):
    def packed(data):
        writer = zlib.compressobj(wbits=window)
        return framed(writer.compress(data) + writer.flush(), flag=1)

    headers, body = [(b"grpc-encoding", encoding.encode())], packed(_request())
    assert (await client.call(INFER, body, headers=headers)).code == OK
    assert (await client.call(INFER, framed(_request()), headers=headers)).code == OK

    bomb = packed(b"x" * 10**5)
    assert len(bomb) < LIMIT
    assert (await client.call(INFER, bomb, headers=headers)).code == EXHAUSTED

    cut = framed(body[5:-9], flag=1)
    assert "cut off" in (await client.call(INFER, cut, headers=headers)).text


@pytest.mark.parametrize(
    ("timeout", "duration_ns"),
    [
        (b"8760H", 365 * 24 * 3_600 * 10**9),
        (b"2M", 120 * 10**9),
        (b"1000S", 10**12),
        (b"2000000m", 2 * 10**12),
        (b"30000000u", 30 * 10**9),
        (b"99999999n", 99_999_999),
    ],
)
async def test_a_deadline_counts_from_when_the_call_began(
    client, dataplane, monkeypatch, timeout, duration_ns
):
    deadlines = []
    infer = dataplane.infer

    async def remember(request):
        deadlines.append(request.deadline_ns)
        return await infer(request)

    monkeypatch.setattr(dataplane, "infer", remember)
    begin_ns = time.monotonic_ns()
    number = client.send(INFER, framed(_request()), headers=[(b"grpc-timeout", timeout)])
    end_ns = time.monotonic_ns()
    await client.answer(number)

    [deadline_ns] = deadlines
    assert begin_ns + duration_ns <= deadline_ns <= end_ns + duration_ns


async def test_a_deadline_of_more_than_a_year_is_none(client, dataplane, monkeypatch):
    deadlines = []
    infer = dataplane.infer

    async def remember(request):
        deadlines.append(request.deadline_ns)
        return await infer(request)

    monkeypatch.setattr(dataplane, "infer", remember)
    for timeout in (b"8761H", b"99999999H"):
        headers = [(b"grpc-timeout", timeout)]
        assert (await client.call(INFER, framed(_request()), headers=headers)).code == OK

    assert deadlines == [None]  # the second is of a known kind


async def test_a_call_that_comes_too_late_is_answered_as_such(client):
    answer = await client.call(INFER, framed(_request()), headers=[(b"grpc-timeout", b"0S")])

    assert answer.code == LATE


async def test_a_refusal_says_when_to_try_again_whatever_its_text(client, dataplane, monkeypatch):
    async def refuse(_request):
        raise Overloaded("größe 100 %\n", retry_after_ns=1_500_000)

    monkeypatch.setattr(dataplane, "infer", refuse)
    answer = await client.call(INFER, framed(_request()))

    assert (answer.code, answer.text) == (EXHAUSTED, "größe 100 %\n")
    assert answer.metadata[b"grpc-retry-pushback-ms"] == b"2"


async def test_a_fault_of_ours_is_told_and_logged(client, dataplane, monkeypatch, caplog):
    async def fail(_request):
        raise RuntimeError("a bug")

    monkeypatch.setattr(dataplane, "infer", fail)
    answer = await client.call(INFER, framed(_request()))

    assert (answer.code, answer.text) == (INTERNAL, "internal error: RuntimeError: a bug")
    assert "a request failed unexpectedly" in caplog.text


async def test_a_model_that_goes_while_it_answers_spoils_no_answer(client, dataplane, monkeypatch):
    infer = dataplane.infer

    async def go_away(request):
        response = await infer(request)
        monkeypatch.setattr(dataplane, "find", _gone)
        return response

    def _gone(_name, *, version):
        raise Overloaded(f"version {version!r} is gone")

    monkeypatch.setattr(dataplane, "infer", go_away)
    assert (await client.call(INFER, framed(_request()))).code == OK


# --- clients that go away -----------------------------------------------------------------------


async def test_a_client_that_goes_away_while_sending_leaves_nothing_behind(client, service):
    body = framed(_request())
    for lost in (False, True):
        number = client.send(INFER, body[:9], ends=False)
        if lost:
            client.wire.connection.connection_lost(None)
        else:
            client.wire.client.reset_stream(number)
            client.wire.deliver()
        assert service.tasks == set()
    assert service.connections == set()


@pytest.mark.parametrize("lost", [False, True])
async def test_a_client_that_goes_away_while_waiting_cancels_its_call(
    client, service, dataplane, monkeypatch, lost
):
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait_for_ever(_request):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(dataplane, "infer", wait_for_ever)
    number = client.send(INFER, framed(_request()))
    await entered.wait()
    if lost:
        client.wire.connection.connection_lost(None)
    else:
        client.wire.client.reset_stream(number)
        client.wire.deliver()
    await cancelled.wait()
    while service.tasks:
        await asyncio.sleep(0)
    assert not [frame for frame in await client.wire.frames() if frame.number == number]


async def test_calls_of_one_connection_do_not_wait_for_each_other(client, dataplane, monkeypatch):
    go = asyncio.Event()
    infer = dataplane.infer

    async def wait(request):
        if request.id == "slow":
            await go.wait()
        return await infer(request)

    monkeypatch.setattr(dataplane, "infer", wait)
    slow = client.send(INFER, framed(_request(id="slow")))
    assert (await client.call(INFER, framed(_request(id="fast")))).code == OK
    go.set()
    assert (await client.answer(slow)).code == OK
