"""ModelStreamInfer and Health.Watch on both front ends: ours with h2 as its client, in memory, and
the handlers of grpcio, whose server would leave events to the event loops of later tests.
"""

import asyncio
import functools
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from ridgeline.errors import DeadlineExceeded, InvalidInput, NotFound, Overloaded
from serving.dataplane import DataPlane
from serving.protocol import grpc_stream
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_server import Handlers
from serving.request import InferResponse
from serving.settings import ServeSettings

pytestmark = pytest.mark.anyio
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
STREAM_RESPONSE = service_pb2.ModelStreamInferResponse
SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


class Failed(Exception):
    """The status that a client would receive: its number and its text."""


class Doubling:
    """y = 2 x; a request waits for the gate named by its id, where there is one."""

    decoupled = False

    def __init__(self):
        self.gates, self.arrived, self.left = {}, [], []
        self.arrival, self.closed = asyncio.Event(), asyncio.Event()

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    async def infer(self, request):
        x = request.inputs["x"]
        self.arrived.append(request.id)
        self.arrival.set()
        if x.flat[0] < 0:
            raise InvalidInput("x is negative")
        try:
            if request.id in self.gates:
                await self.gates[request.id].wait()
        except asyncio.CancelledError:
            self.left.append(request.id)
            raise
        return _response(request, 2 * x)

    async def until_arrived(self, count):
        while len(self.arrived) < count:
            self.arrival.clear()
            await self.arrival.wait()


class Counting(Doubling):
    """y = 0, 1, ... as many as x says; the last one is final where the id says so."""

    decoupled = True

    async def stream(self, request):
        try:
            async for answer in self._answers(request):
                yield answer
        finally:
            self.closed.set()

    async def _answers(self, request):
        for number in range(int(request.inputs["x"].flat[0])):
            answer = await self.infer(request)
            last = request.id == "final" and number + 1 == request.inputs["x"].flat[0]
            yield InferResponse(
                answer.model_name,
                answer.model_version,
                {"y": np.float32([[number]])},
                id=request.id,
                final=last,
            )
        if request.id == "fails":
            raise Overloaded("enough")


def _response(request, y):
    return InferResponse(request.model_name, "1", {"y": y}, id=request.id)


class Registry:
    """The models above under their names."""

    settings = ServeSettings()

    def __init__(self):
        self.models = {"double": Doubling(), "count": Counting()}
        self.generation = 0
        self.settings = ServeSettings()
        self.all_loaded = asyncio.Event()
        self.all_loaded.set()

    @property
    def loaded(self):
        return self.all_loaded.is_set()

    async def until_loaded(self):
        await self.all_loaded.wait()

    def find(self, name, /, *, version=""):  # noqa: ARG002 - the real one's
        if name not in self.models:
            raise NotFound(f"Request for unknown model: {name!r} is not found")
        config = model_config_pb2.ModelConfig()
        config.model_transaction_policy.decoupled = self.models[name].decoupled
        return SimpleNamespace(
            scheduler=self.models[name], loaded=SimpleNamespace(config=config), batcher=None
        )


class HandlerChannel:
    """Calls of grpcio's handlers."""

    def __init__(self, dataplane):
        self._handlers = Handlers(dataplane)

    def open(self, path, *, metadata=()):
        handler = self._handlers.service(SimpleNamespace(method=path))
        assert (handler.request_streaming, handler.response_streaming) == (True, True)
        return HandlerCall(handler, metadata=metadata)


class HandlerCall:
    """A client's call of such a handler; its responses are not put into bytes."""

    def __init__(self, handler, *, metadata):
        self.requests = asyncio.Queue()
        self._context = HandlerContext(metadata)
        self._task = asyncio.create_task(handler.stream_stream(self._requests(), self._context))

    async def _requests(self):
        while (request := await self.requests.get()) is not None:
            yield request

    def write(self, request):
        self.requests.put_nowait(request)

    def done_writing(self):
        self.requests.put_nowait(None)

    async def read(self):
        reading = asyncio.create_task(self._context.responses.get())
        await asyncio.wait((reading, self._task), return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        reading.cancel()
        if self._context.error is not None:
            raise self._context.error
        return None

    def cancel(self):
        self._task.cancel()


class HandlerContext:
    """The part of a call's context that grpcio's handlers use."""

    def __init__(self, metadata):
        self._metadata = metadata
        self.responses = asyncio.Queue(1)
        self.error = None

    def time_remaining(self):
        return None

    def invocation_metadata(self):
        return self._metadata

    async def send_initial_metadata(self, metadata):
        assert metadata == ()

    async def write(self, response):
        await self.responses.put(response)

    async def abort(self, code, details, _metadata):
        self.error = Failed(code.value[0], details)


class WireChannel:
    """Calls over a connection of our own front end, each on a connection of its own."""

    def __init__(self, service, grpc_wire):
        self._service, self._grpc_wire = service, grpc_wire

    def open(self, path, *, metadata=(), timeout=None):
        headers = [(name.encode(), value.encode()) for name, value in metadata]
        if timeout:
            headers.append((b"grpc-timeout", timeout))
        client = self._grpc_wire(self._service)
        kind = health_pb2.HealthCheckResponse if path == WATCH else STREAM_RESPONSE
        return WireCall(client, client.send(path, headers=headers, ends=False), kind=kind)


class WireCall:
    """A client's call."""

    def __init__(self, client, number, *, kind):
        self._client, self._number, self._kind = client, number, kind
        self._read = 0  # messages

    def write(self, request):
        data = self._client.framed(request.SerializeToString())
        self._client.wire.client.send_data(self._number, data)
        self._client.wire.deliver()

    def done_writing(self):
        self._client.wire.client.end_stream(self._number)
        self._client.wire.deliver()

    async def read(self):
        wire = self._client.wire
        while True:
            body, has_ended = wire.answered(self._number)
            messages = list(_messages(body))
            if len(messages) > self._read:
                self._read += 1
                return self._kind.FromString(messages[self._read - 1])
            if has_ended:
                answer = await self._client.answer(self._number)
                if answer.code:
                    raise Failed(answer.code, answer.text)
                return None
            await wire.more()

    def cancel(self):
        self._client.wire.client.reset_stream(self._number)
        self._client.wire.deliver()


def _messages(body):
    while body:
        size = 5 + int.from_bytes(body[1:5], "big")
        yield body[5:size]
        body = body[size:]


@pytest.fixture
async def registry():
    return Registry()


@pytest.fixture
async def dataplane(registry):
    return DataPlane(registry)


@pytest.fixture(params=["direct", "grpcio"])
async def channel(request, dataplane, grpc_wire):
    if request.param == "grpcio":
        return HandlerChannel(dataplane)
    return WireChannel(GrpcService(dataplane, max_request_bytes=2**20), grpc_wire)


@pytest.fixture
def stream(channel):
    """Opens a stream: a call that is written to and read from."""
    return functools.partial(channel.open, STREAM)


def _request(x, *, model="double", request_id="", **parameters):
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(np.float32([x]).tobytes())
    for name, value in parameters.items():
        field = {bool: "bool_param", int: "int64_param"}.get(type(value), "string_param")
        setattr(request.parameters[name], field, value)
    return request


def _number(answer):
    assert answer.error_message == ""
    [raw] = answer.infer_response.raw_output_contents
    return float(np.frombuffer(raw, np.float32)[0])


def _is_final(answer):
    return answer.infer_response.parameters["triton_final_response"].bool_param


async def _all(call, *requests):
    for request in requests:
        call.write(request)
    call.done_writing()
    return await _rest(call)


async def _rest(call):
    """What is left to read."""
    answers = []
    while (answer := await call.read()) is not None:
        answers.append(answer)
    return answers


async def test_every_request_of_a_stream_is_answered_in_order(stream):
    answers = await _all(stream(), *(_request(x, request_id=str(x)) for x in range(600)))

    assert [_number(answer) for answer in answers] == [2.0 * x for x in range(600)]
    assert [answer.infer_response.id for answer in answers] == [str(x) for x in range(600)]
    assert all(map(_is_final, answers))


async def test_a_stream_without_requests_ends_well(stream):
    assert await _all(stream()) == []


async def test_the_requests_of_a_stream_run_at_the_same_time(stream, registry):
    model = registry.models["double"]
    gate = model.gate("first")
    call = stream()

    call.write(_request(1, request_id="first"))
    call.write(_request(2, request_id="second"))
    await model.until_arrived(2)
    gate.set()
    call.done_writing()

    assert [_number(answer) for answer in await _rest(call)] == [2, 4]  # in order nevertheless


async def test_a_decoupled_model_does_not_wait_for_what_was_asked_before(stream, registry):
    gate = registry.models["double"].gate("first")
    call = stream()

    call.write(_request(1, request_id="first"))
    call.write(_request(2, model="count"))
    counted = [_number(await call.read()) for _ in range(2)]
    gate.set()
    call.done_writing()

    assert counted == [0, 1]
    assert _number(await call.read()) == 2


async def test_answers_keep_their_order_around_a_decoupled_request(stream, registry):
    gate = registry.models["double"].gate("first")
    call = stream()

    for request in (_request(1, request_id="first"), _request(1, model="count"), _request(3)):
        call.write(request)
    counted = _number(await call.read())
    gate.set()
    call.done_writing()

    assert counted == 0
    assert [_number(answer) for answer in await _rest(call)] == [2, 6]


@pytest.mark.parametrize(
    ("request_", "flags"),
    [
        (_request(2, model="count"), [False, False]),
        (_request(0, model="count"), []),
        (_request(2, model="count", triton_enable_empty_final_response=False), [False, False]),
        (_request(2, model="count", request_id="final"), [False, True]),
    ],
)
async def test_a_decoupled_model_answers_as_often_as_it_likes(stream, request_, flags):
    answers = await _all(stream(), request_)

    assert [_number(answer) for answer in answers] == list(map(float, range(len(flags))))
    assert [_is_final(answer) for answer in answers] == flags


@pytest.mark.parametrize(("count", "name", "empty"), [(2, "", 1), (0, "", 1), (2, "final", 0)])
async def test_the_end_of_the_answers_is_told_where_it_is_wanted(stream, count, name, empty):
    request = _request(
        count, model="count", request_id=name, triton_enable_empty_final_response=True
    )

    answers = await _all(stream(), request)

    assert len(answers) == count + empty
    assert _is_final(answers[-1])
    assert len(answers[-1].infer_response.outputs) == 1 - empty
    assert answers[-1].infer_response.model_name == "count"
    assert answers[-1].infer_response.id == name


async def test_a_request_that_fails_tells_so_and_the_stream_goes_on(stream):
    answers = await _all(
        stream(),
        _request(1, model="nobody", request_id="a"),
        _request(-1, request_id="b"),
        _request(1, request_id="c", triton_enable_empty_final_response=1),
        _request(1, request_id="d", triton_secret=True),
        _request(1, model="count", request_id="fails"),
        _request(4, request_id="e", triton_enable_empty_final_response=True),
    )

    by_id = {answer.infer_response.id: answer for answer in answers}
    assert "unknown model: 'nobody'" in by_id["a"].error_message
    assert "x is negative" in by_id["b"].error_message
    assert "expected bool_param, received int64_param" in by_id["c"].error_message
    assert "reserved" in by_id["d"].error_message
    assert "enough" in by_id["fails"].error_message
    assert _number(by_id["e"]) == 8


async def test_an_error_ends_the_call_where_the_client_wants_a_status(stream):
    call = stream(metadata=(("triton_grpc_error", "true"),))

    call.write(_request(1))
    assert _number(await call.read()) == 2
    call.write(_request(1, model="nobody"))

    with pytest.raises(Failed, match="nobody") as caught:
        await call.read()
    assert caught.value.args[0] == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize(
    ("like_triton", "status"), [(False, "DEADLINE_EXCEEDED"), (True, "UNAVAILABLE")]
)
async def test_that_status_is_tritons_where_its_codes_are_asked_for(
    stream, registry, dataplane, monkeypatch, like_triton, status
):
    async def late(_request):
        raise DeadlineExceeded("it waited too long")

    monkeypatch.setattr(registry.models["double"], "infer", late)
    dataplane.like_triton = like_triton
    call = stream(metadata=(("triton_grpc_error", "true"),))

    call.write(_request(1))

    with pytest.raises(Failed, match="it waited too long") as caught:
        await call.read()
    assert caught.value.args[0] == grpc.StatusCode[status].value[0]


async def test_a_client_that_goes_away_takes_its_requests_back(stream, registry):
    model = registry.models["double"]
    model.gate("first"), model.gate("second")
    call = stream()
    call.write(_request(1, request_id="first"))
    call.write(_request(1, request_id="second"))
    await model.until_arrived(2)

    call.cancel()

    while sorted(model.left) != ["first", "second"]:
        await asyncio.sleep(0)


async def test_a_client_that_goes_away_ends_an_endless_answer(stream, registry):
    model = registry.models["count"]
    call = stream()
    call.write(_request(2.0**40, model="count"))
    await call.read()

    call.cancel()

    await model.closed.wait()


async def test_the_deadline_of_a_stream_ends_it(channel, registry):
    if isinstance(channel, HandlerChannel):
        pytest.skip("grpcio itself keeps deadlines")
    registry.models["double"].gate("never")
    call = channel.open(STREAM, timeout=b"1m")
    call.write(_request(1, request_id="never"))

    with pytest.raises(Failed, match="deadline") as caught:
        await call.read()

    assert caught.value.args[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_stream_reads_no_more_than_it_may_have_under_way(stream, registry, monkeypatch):
    monkeypatch.setattr(grpc_stream, "_MAX_REQUESTS", 3)
    model = registry.models["double"]
    gate = model.gate("held")
    call = stream()

    for _ in range(10):
        call.write(_request(1, request_id="held"))
    await model.until_arrived(3)
    for _ in range(100):
        await asyncio.sleep(0)
    arrived = len(model.arrived)
    gate.set()
    call.done_writing()

    assert arrived == 3
    assert len(await _rest(call)) == 10


async def test_a_request_larger_than_what_may_be_under_way_goes_alone(stream, monkeypatch):
    monkeypatch.setattr(grpc_stream, "_MAX_REQUEST_BYTES", 10)

    answers = await _all(stream(), *(_request(x) for x in range(5)))

    assert len(answers) == 5


async def test_when_the_server_stops_a_stream_answers_what_it_has_read(stream, registry, dataplane):
    model = registry.models["double"]
    gate = model.gate("first")
    call = stream()
    call.write(_request(1, request_id="first"))
    await model.until_arrived(1)

    dataplane.stopping = True
    gate.set()

    assert _number(await call.read()) == 2
    with pytest.raises(Failed, match="stopping") as caught:
        await call.read()
    assert caught.value.args[0] == grpc.StatusCode.UNAVAILABLE.value[0]


def _watch(channel, service=""):
    call = channel.open(WATCH)
    call.write(health_pb2.HealthCheckRequest(service=service))
    call.done_writing()
    return call


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
async def test_a_watcher_of_health_learns_of_each_change(channel, registry, dataplane, service):
    registry.all_loaded.clear()
    call = _watch(channel, service)

    seen = [(await call.read()).status]
    registry.all_loaded.set()
    seen.append((await call.read()).status)
    dataplane.stopping = True
    seen.append((await call.read()).status)

    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
    with pytest.raises(Failed, match="stopping"):
        await call.read()


async def test_the_health_of_an_unknown_service_is_unknown(channel, dataplane):
    call = _watch(channel, "nobody")

    assert (await call.read()).status == UNKNOWN
    dataplane.stopping = True
    with pytest.raises(Failed, match="stopping"):
        await call.read()


async def test_who_asks_nothing_cannot_watch(channel):
    call = channel.open(WATCH)
    call.done_writing()

    with pytest.raises(Failed, match="expected one request") as caught:
        await call.read()
    assert caught.value.args[0] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
