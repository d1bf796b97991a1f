"""ModelStreamInfer on both front ends."""

import asyncio
import functools

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from ridgeline.errors import DeadlineExceeded
from serving.protocol import grpc_stream
from tests.serving.http2.streaming.calls import STREAM, Failed, HandlerChannel, rest

pytestmark = pytest.mark.anyio


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
    return await rest(call)


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

    assert [_number(answer) for answer in await rest(call)] == [2, 4]  # in order nevertheless


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
    assert [_number(answer) for answer in await rest(call)] == [2, 6]


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
    assert len(await rest(call)) == 10


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
