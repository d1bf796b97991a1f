"""Requests that are recognised get exactly the answers of the thorough way."""

import asyncio
import itertools
import threading

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.forwarding import HeaderForwarding
from serving.job import Job
from serving.protocol.grpc_codec import decode_request, encode_response
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_method import INFER
from serving.protocol.http2_sending import Stream
from serving.registry import Registry
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio
OK, LATE, EXHAUSTED = (
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
)
ALONE = """
max_batch_size: 1
instance_group { count: 1 }
dynamic_batching { default_queue_policy { max_queue_size: 1 } }
"""


@pytest.fixture
async def registry(repository, models, settings):
    repository.add("identity", models.identity())
    repository.add("bf16", models.identity("BF16"))
    repository.add("text", models.identity("BYTES"))
    repository.add("free", models.identity(shape=("batch", "length")))
    repository.add("scalar", models.identity(shape=()))
    repository.add("two", models.two_inputs())
    repository.add("slow", models.slow(20_000), config=ALONE)
    for version in (1, 2):
        model = models.dense(2, 1, weight=version)
        repository.add("versioned", model, version=version, config="version_policy { all {} }")
    registry = Registry(settings)
    await registry.load()
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def dataplane(registry):
    return DataPlane(registry)


@pytest.fixture
def service(dataplane):
    return GrpcService(dataplane, max_request_bytes=100_000)


@pytest.fixture
async def client(service, grpc_wire):
    return grpc_wire(service)


def message(model="identity", arrays=None, *, datatype="FP32", **fields):
    """A request as clients write it."""
    request = service_pb2.ModelInferRequest(model_name=model, **fields)
    for name, array in (arrays or {"x": np.array([[3, 4]], np.float32)}).items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def framed(data):
    return b"\0" + len(data).to_bytes(4, "big") + data


class Counted:
    """How many requests went the thorough way."""

    def __init__(self, dataplane, monkeypatch):
        self.times, self._infer = 0, dataplane.infer
        monkeypatch.setattr(dataplane, "infer", self)

    async def __call__(self, request):
        self.times += 1
        return await self._infer(request)


@pytest.fixture
def thorough(dataplane, monkeypatch):
    return Counted(dataplane, monkeypatch)


def rows(count, width, *, first=0):
    return np.arange(first, first + count * width, dtype=np.float32).reshape(count, width)


# Requests that are to be recognised, each with one of the same kind.
USUAL = {
    "one row": (message(), message(arrays={"x": rows(1, 2, first=7)})),
    "several rows": (message(arrays={"x": rows(5, 2)}), message(arrays={"x": rows(5, 2, first=1)})),
    "more rows than a batch": (
        message(arrays={"x": rows(32, 2)}),
        message(arrays={"x": rows(32, 2, first=9)}),
    ),
    "several inputs": (
        message("two", {"a": rows(2, 3), "b": rows(2, 3, first=50)}),
        message("two", {"a": rows(2, 3, first=20), "b": rows(2, 3, first=-50)}),
    ),
    "inputs in another order": (
        message("two", {"b": rows(2, 3), "a": rows(2, 3, first=50)}),
        message("two", {"b": rows(2, 3, first=20), "a": rows(2, 3, first=-50)}),
    ),
    "no batch axis": (
        message("scalar", {"x": np.array(3, np.float32)}),
        message("scalar", {"x": np.array(-1, np.float32)}),
    ),
    "two bytes a number": (
        message("bf16", {"x": np.array([[1, 2]], np.int16)}, datatype="BF16"),
        message("bf16", {"x": np.array([[-9, 0]], np.int16)}, datatype="BF16"),
    ),
    "a version": (
        message("versioned", model_version="1"),
        message("versioned", {"x": rows(1, 2)}, model_version="1"),
    ),
}


async def expected(dataplane, request):
    """The answer of the thorough way, by hand."""
    response = await dataplane.infer(decode_request(request, deadline_ns=None))
    return encode_response(response)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", USUAL)
async def test_a_known_request_gets_the_answer_of_the_thorough_way(
    client, dataplane, thorough, kind, pieces
):
    first, second = USUAL[kind]
    expectations = [await expected(dataplane, request) for request in (first, second, first)]
    counted = thorough.times
    for request, expectation in zip((first, second, first), expectations, strict=True):
        body = framed(request.SerializeToString())
        ends = [len(body) * piece // pieces for piece in range(pieces + 1)]
        parts = [body[a:b] for a, b in itertools.pairwise(ends)]
        answer = await client.call(INFER, *parts)
        assert answer.code == OK
        assert service_pb2.ModelInferResponse.FromString(answer.message) == expectation
    if pieces == 1:
        assert thorough.times == counted + 1


async def test_a_body_may_be_cut_at_any_one_place(client, dataplane):
    for first, second in (USUAL["one row"], USUAL["several inputs"]):
        expectation = await expected(dataplane, second)
        await client.call(INFER, framed(first.SerializeToString()))
        body = framed(second.SerializeToString())
        for place in range(1, len(body)):
            answer = await client.call(INFER, body[:place], body[place:])
            assert service_pb2.ModelInferResponse.FromString(answer.message) == expectation


async def test_known_and_other_requests_share_batches(client, dataplane):
    requests = [message(arrays={"x": rows(1, 2, first=n)}) for n in range(20)]
    for request in requests[::2]:
        request.id = "7"  # these go the thorough way
    expectations = [await expected(dataplane, request) for request in requests]
    await client.call(INFER, framed(message().SerializeToString()))

    numbers = [client.send(INFER, framed(request.SerializeToString())) for request in requests]
    answers = [await client.answer(number) for number in numbers]
    assert [
        service_pb2.ModelInferResponse.FromString(answer.message) for answer in answers
    ] == expectations


def _with(change):
    request = message()
    change(request)
    return request


@pytest.mark.parametrize(
    "payload",
    [
        # Fields behind the tensors; and a tensor whose length is written in more bytes than needed.
        message().SerializeToString() + b"\x0a\x08identity",
        message().SerializeToString()[:-9] + b"\x88\x00" + bytes(8),
    ],
)
async def test_a_message_that_is_written_unusually_is_not_mistaken(client, dataplane, payload):
    request = service_pb2.ModelInferRequest.FromString(payload)
    expectation = await expected(dataplane, request)
    for _ in range(3):
        answer = await client.call(INFER, framed(payload))
        assert service_pb2.ModelInferResponse.FromString(answer.message) == expectation


# --- one at a time ------------------------------------------------------------------------------


async def _turns():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 3])
async def test_requests_that_come_one_at_a_time_are_answered_in_memory_of_their_own(
    client, dataplane, registry, monkeypatch, count
):
    requests = [
        message("versioned", {"x": rows(count, 2, first=first)}, model_version="2")
        for first in (1, -5)
    ]
    expectations = [await expected(dataplane, request) for request in requests]
    model = registry.find("versioned")
    queued, submit = [], model.batcher.submit
    monkeypatch.setattr(model.batcher, "submit", lambda job: queued.append(submit(job)))

    for number in range(30):
        answer = await client.call(INFER, framed(requests[number % 2].SerializeToString()))
        assert answer.code == OK
        parsed = service_pb2.ModelInferResponse.FromString(answer.message)
        assert parsed == expectations[number % 2]
        await _turns()

    assert len(queued) <= 10
    assert model.statistics.success == 32
    assert not client.wire.connection._streams


# --- on the way ---------------------------------------------------------------------------------


@pytest.fixture
def busy(registry, monkeypatch):
    """A function that lets the engine of the model `slow` end what it was given."""
    model = registry.find("slow")
    monkeypatch.setattr(model.batcher, "_at_once_ns", 0)  # or the event loop would wait
    engine = model.loaded.engine
    run, entered, go = engine.run, threading.Event(), threading.Event()

    def wait(*args, **what):
        entered.set()
        assert go.wait(60)
        return run(*args, **what)

    monkeypatch.setattr(engine, "run", wait)
    yield entered, go
    go.set()


async def _occupy(client, busy):
    """Let the kind become known, and the engine be busy with such a request."""
    entered, go = busy
    body = framed(message("slow", {"x": np.ones((1, 2), np.float32)}).SerializeToString())
    go.set()
    assert (await client.call(INFER, body)).code == OK
    go.clear()
    entered.clear()
    running = client.send(INFER, body)
    await asyncio.to_thread(entered.wait)
    return body, running


async def test_a_deadline_that_passes_in_the_queue_is_told(client, busy, thorough):
    body, running = await _occupy(client, busy)
    late = await client.call(INFER, body, headers=[(b"grpc-timeout", b"300m")])
    busy[1].set()

    assert late.code == LATE
    assert (await client.answer(running)).code == OK
    assert thorough.times == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_a_client_that_goes_away_takes_its_known_request_out_of_the_queue(
    client, service, busy, registry, thorough, lost
):
    body, running = await _occupy(client, busy)
    batcher = registry.find("slow").batcher
    number = client.send(INFER, body)
    assert batcher.waiting_requests == 1
    if lost:
        client.wire.connection.connection_lost(None)
    else:
        client.wire.client.reset_stream(number)
        client.wire.deliver()

    assert batcher.waiting_requests == 0
    busy[1].set()
    if not lost:
        assert (await client.answer(running)).code == OK
    assert thorough.times == 1
    assert service.tasks == set()


async def test_answered_and_late_requests_and_those_given_up_leave_no_cycles(
    client, busy, left_in_cycles
):
    body, running = await _occupy(client, busy)
    with left_in_cycles(Stream, Job) as left:
        given_up = client.send(INFER, body)
        client.wire.client.reset_stream(given_up)
        client.wire.deliver()
        late = await client.call(INFER, body, headers=[(b"grpc-timeout", b"300m")])
        busy[1].set()
        codes = [late.code, (await client.answer(running)).code]
        codes += [(await client.call(INFER, body)).code for _ in range(3)]
        del running
    assert codes == [LATE, OK, OK, OK, OK]
    assert left == []


async def test_known_requests_beyond_the_queue_are_refused_alike(client, busy, registry, thorough):
    body, running = await _occupy(client, busy)
    begun = [running]
    for _ in range(8):  # more than the engine and the queue hold
        begun.append(client.send(INFER, body))
        await client.wire.receive()
    refusals = [await client.call(INFER, body) for _ in range(3)]

    assert {answer.code for answer in refusals} == {EXHAUSTED}
    assert all(b"grpc-retry-pushback-ms" in answer.metadata for answer in refusals)
    assert refusals[0] == refusals[1] == refusals[2]

    busy[1].set()
    codes = [(await client.answer(number)).code for number in begun]
    assert codes[:2] == [OK, OK]
    assert set(codes) == {OK, EXHAUSTED}
    statistics = registry.find("slow").statistics
    assert statistics.failure[FailureReason.REJECTED] == codes.count(EXHAUSTED) + 3
    assert (await client.call(INFER, body)).code == OK
    assert thorough.times == 1


async def test_a_known_request_that_the_engine_fails_on_is_told(client, registry, monkeypatch):
    body = framed(message().SerializeToString())
    assert (await client.call(INFER, body)).code == OK

    def fail(*_args, **_what):
        raise RuntimeError("a kernel refused its input")

    monkeypatch.setattr(registry.find("identity").loaded.engine, "run", fail)
    answer = await client.call(INFER, body)
    assert answer.code == grpc.StatusCode.INTERNAL.value[0]
    assert "a kernel refused its input" in answer.text


async def test_a_known_request_is_refused_as_any_other_while_stopping(client, registry):
    body = framed(message().SerializeToString())
    assert (await client.call(INFER, body)).code == OK
    await registry.find("identity").batcher.close(drain_seconds=60)

    for _ in range(2):
        answer = await client.call(INFER, body)
        assert answer.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert "stopping" in answer.text


async def test_requests_that_forward_nothing_are_recognised_beside_those_that_do(
    dataplane, thorough, grpc_wire
):
    dataplane.forwarding = HeaderForwarding(grpc_pattern="^team$")
    client = grpc_wire(GrpcService(dataplane, max_request_bytes=100_000))
    body = framed(message().SerializeToString())

    for _ in range(2):  # neither is anything learned from it, nor is it recognised
        assert (await client.call(INFER, body, headers=[(b"team", b"a")])).code == 0
    assert thorough.times == 2
    for _ in range(3):
        assert (await client.call(INFER, body, headers=[(b"other", b"b")])).code == 0
    assert thorough.times == 3
    assert (await client.call(INFER, body, headers=[(b"team", b"a")])).code == 0
    assert thorough.times == 4
