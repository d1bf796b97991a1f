"""The gRPC methods, called without a connection, through grpcio's handlers and through ASGI."""

import asyncio
import time
import urllib.parse
import zlib
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from ridgeline.errors import InvalidInput
from serving.dataplane import DataPlane
from serving.protocol.grpc_asgi import GrpcApp
from serving.protocol.grpc_methods import methods
from serving.protocol.grpc_server import GrpcServer, Handlers
from serving.registry import Registry

pytestmark = pytest.mark.anyio
INFERENCE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
RESPONSES = {
    **{
        f"{INFERENCE}{name}": getattr(service_pb2, f"{name}Response")
        for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    },
    f"{INFERENCE}ModelConfig": service_pb2.ModelConfigResponse,
    f"{INFERENCE}ModelInfer": service_pb2.ModelInferResponse,
    HEALTH: health_pb2.HealthCheckResponse,
}


class Aborted(Exception):
    """The status that a client would receive instead of an answer."""


class Context:
    """The part of a call's context that grpcio's handlers use."""

    def __init__(self, *, seconds_left: float | None = None) -> None:
        self._seconds_left = seconds_left

    def time_remaining(self) -> float | None:
        return self._seconds_left

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


def through_grpcio(dataplane):
    """A function that calls a method by its path, as grpcio's server does."""
    handlers = Handlers(dataplane)

    async def call(path, request, *, seconds_left=None):
        handler = handlers.service(SimpleNamespace(method=path))
        given = handler.request_deserializer(request.SerializeToString())
        answer = await handler.unary_unary(given, Context(seconds_left=seconds_left))
        return RESPONSES[path].FromString(handler.response_serializer(answer))

    return call


def framed(data, *, flag=0):
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


async def over_asgi(app, path, *parts, headers=()):
    """What an ASGI server sends for a call whose body comes in those parts."""
    events = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    events.append({"type": "http.request"})
    sent = []

    async def receive():
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "path": path, "headers": [*headers]}
    await app(scope, receive, send)
    return sent


def status(sent):
    """The gRPC status and message among the headers and trailers that were sent."""
    fields = {key: value for event in sent for key, value in event.get("headers", ())}
    (code,) = (c for c in grpc.StatusCode if c.value[0] == int(fields[b"grpc-status"]))
    return code, urllib.parse.unquote(fields.get(b"grpc-message", b"").decode("ascii"))


def through_asgi(dataplane):
    """A function that calls a method by its path, as a client of the ASGI application does."""
    app = GrpcApp(dataplane, max_request_bytes=2**20)

    async def call(path, request, *, seconds_left=None):
        timeout = [] if seconds_left is None else [(b"grpc-timeout", b"%dS" % seconds_left)]
        sent = await over_asgi(app, path, framed(request.SerializeToString()), headers=timeout)
        code, text = status(sent)
        if code != grpc.StatusCode.OK:
            raise Aborted(code, text)
        body = b"".join(event.get("body", b"") for event in sent)
        assert body == framed(body[5:])
        return RESPONSES[path].FromString(body[5:])

    return call


@pytest.fixture
async def registry(repository, models, settings):
    repository.add("identity", models.identity())
    repository.add("broken", b"garbage")
    registry = Registry(settings)
    await registry.load()
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def dataplane(registry):
    return DataPlane(registry)


@pytest.fixture(params=[through_grpcio, through_asgi])
def call(request, dataplane):
    return request.param(dataplane)


def _request(**fields):
    request = service_pb2.ModelInferRequest(**{"model_name": "identity", "id": "7", **fields})
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([3, 4], np.float32).tobytes())
    return request


async def test_a_live_and_ready_server_says_so(call, dataplane):
    assert (await call(f"{INFERENCE}ServerLive", service_pb2.ServerLiveRequest())).live
    assert (await call(f"{INFERENCE}ServerReady", service_pb2.ServerReadyRequest())).ready

    dataplane.stopping = True

    assert (await call(f"{INFERENCE}ServerLive", service_pb2.ServerLiveRequest())).live
    assert not (await call(f"{INFERENCE}ServerReady", service_pb2.ServerReadyRequest())).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("identity", "", True),
        ("identity", "1", True),
        ("identity", "2", False),
        ("broken", "", False),
        ("nope", "", False),
    ],
)
async def test_a_model_is_ready_or_not(call, name, version, ready):
    request = service_pb2.ModelReadyRequest(name=name, version=version)

    assert (await call(f"{INFERENCE}ModelReady", request)).ready == ready


async def test_the_server_names_itself_and_the_extensions_that_are_there(call):
    metadata = await call(f"{INFERENCE}ServerMetadata", service_pb2.ServerMetadataRequest())

    assert metadata.name == "ridgeline"
    assert metadata.extensions == ["binary_tensor_data", "model_configuration"]


async def test_the_metadata_show_the_batch_axis(call):
    metadata = await call(
        f"{INFERENCE}ModelMetadata", service_pb2.ModelMetadataRequest(name="identity")
    )

    assert (metadata.name, metadata.versions, metadata.platform) == (
        "identity",
        ["1"],
        "onnxruntime_onnx",
    )
    for tensor, name in ((metadata.inputs[0], "x"), (metadata.outputs[0], "y")):
        assert (tensor.name, tensor.datatype, tensor.shape) == (name, "FP32", [-1, 2])


async def test_the_configuration_is_complete(call):
    request = service_pb2.ModelConfigRequest(name="identity")

    config = (await call(f"{INFERENCE}ModelConfig", request)).config

    assert (config.name, config.max_batch_size, config.backend) == ("identity", 32, "onnxruntime")
    assert "ridgeline_multiply_adds_per_sample" in config.parameters


async def test_an_inference_is_answered_with_the_id_it_came_with(call):
    response = await call(f"{INFERENCE}ModelInfer", _request())

    assert (response.model_name, response.model_version, response.id) == ("identity", "1", "7")
    assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (_request(model_name="nope"), grpc.StatusCode.NOT_FOUND, "unknown model: 'nope'"),
        (_request(model_version="2"), grpc.StatusCode.NOT_FOUND, "version '2' is not found"),
        (_request(model_name="broken"), grpc.StatusCode.UNAVAILABLE, "'broken' version 1 is unav"),
        (
            service_pb2.ModelInferRequest(model_name="identity"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "expected 1 inputs but got 0 inputs for model 'identity'",
        ),
        (
            _request(raw_input_contents=[b"more"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "model 'identity': expected one raw_input_contents entry for each of 1 inputs",
        ),
    ],
)
async def test_errors_name_the_model_and_what_is_wrong(call, request_, code, words):
    with pytest.raises(Aborted) as aborted:
        await call(f"{INFERENCE}ModelInfer", request_)

    assert aborted.value.args[0] == code
    assert words in aborted.value.args[1]


@pytest.mark.parametrize("rpc", ["ModelMetadata", "ModelConfig"])
async def test_unknown_models_are_not_found(call, rpc):
    request = service_pb2.ModelMetadataRequest(name="nope")

    with pytest.raises(Aborted, match="unknown model: 'nope'"):
        await call(INFERENCE + rpc, request)


async def test_a_deadline_travels_into_the_queue(call, dataplane, monkeypatch):
    deadlines = []
    infer = dataplane.infer

    async def remember(request):
        deadlines.append(request.deadline_ns)
        return await infer(request)

    monkeypatch.setattr(dataplane, "infer", remember)
    begin_ns = time.monotonic_ns()
    await call(f"{INFERENCE}ModelInfer", _request(), seconds_left=1_000)
    end_ns = time.monotonic_ns()
    await call(f"{INFERENCE}ModelInfer", _request())

    assert begin_ns + 1_000 * 10**9 <= deadlines[0] <= end_ns + 1_000 * 10**9
    assert deadlines[1] is None


async def test_a_request_that_comes_too_late_is_answered_as_such(call):
    with pytest.raises(Aborted) as aborted:
        await call(f"{INFERENCE}ModelInfer", _request(), seconds_left=0)

    assert aborted.value.args[0] == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService"])
async def test_the_health_service_follows_readiness(call, dataplane, name):
    request = health_pb2.HealthCheckRequest(service=name)
    assert (await call(HEALTH, request)).status == SERVING

    dataplane.stopping = True

    assert (await call(HEALTH, request)).status == NOT_SERVING


async def test_the_health_of_an_unknown_service_is_not_found(call):
    request = health_pb2.HealthCheckRequest(service="other")

    with pytest.raises(Aborted, match="unknown service 'other'"):
        await call(HEALTH, request)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_that_is_taken_is_named(dataplane, host):
    first = GrpcServer(dataplane, host=host, port=0, max_request_bytes=1_000)
    await first.start()

    with pytest.raises(InvalidInput, match=rf"gRPC cannot listen on {host}:{first.port}"):
        GrpcServer(dataplane, host=host, port=first.port, max_request_bytes=1_000)
    await first.stop(drain_seconds=0)


async def test_grpcio_knows_the_methods_that_there_are_and_no_others(dataplane):
    handlers = Handlers(dataplane)
    assert all(handlers.service(SimpleNamespace(method=path)) for path in methods(dataplane))
    assert handlers.service(SimpleNamespace(method="/no/Such")) is None


@pytest.fixture
def app(dataplane):
    return GrpcApp(dataplane, max_request_bytes=1_000)


INFER = f"{INFERENCE}ModelInfer"
UNIMPLEMENTED, INTERNAL = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("path", "parts", "headers", "code", "words"),
    [
        ("/no/Such", [framed(b"")], [], UNIMPLEMENTED, "no method '/no/Such'"),
        (INFER, [], [], INTERNAL, "expected one message, received 0 bytes"),
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
    ],
)
async def test_what_is_no_call_is_refused_with_its_reason(app, path, parts, headers, code, words):
    found, text = status(await over_asgi(app, path, *parts, headers=headers))
    assert found == code
    assert words in text


@pytest.mark.parametrize("size", [1_001, 100_000])
async def test_a_message_over_the_limit_is_refused_before_it_is_parsed(app, size):
    parts = [framed(b"x" * size)[start : start + 500] for start in range(0, size + 5, 500)]
    found, text = status(await over_asgi(app, INFER, *parts))
    assert found == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than 1000 bytes" in text


@pytest.mark.parametrize(("encoding", "window"), [("gzip", 31), ("deflate", 15)])
async def test_a_compressed_message_is_read_and_its_real_size_is_bounded(app, encoding, window):
    def packed(data):
        writer = zlib.compressobj(wbits=window)
        return framed(writer.compress(data) + writer.flush(), flag=1)

    headers = [(b"grpc-encoding", encoding.encode())]
    body = packed(_request().SerializeToString())
    assert status(await over_asgi(app, INFER, body, headers=headers))[0] == grpc.StatusCode.OK

    found, _ = status(await over_asgi(app, INFER, packed(b"x" * 10**6), headers=headers))
    assert found == grpc.StatusCode.RESOURCE_EXHAUSTED

    cut = framed(body[5:-9], flag=1)
    assert "cut off" in status(await over_asgi(app, INFER, cut, headers=headers))[1]


async def test_a_client_that_goes_away_while_sending_receives_nothing(app):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(event):
        sent.append(event)

    await app({"type": "http", "path": INFER, "headers": []}, receive, send)
    assert sent == []


async def test_a_client_that_goes_away_while_waiting_cancels_its_call(app, dataplane, monkeypatch):
    loop = asyncio.get_running_loop()
    gone, cancelled = loop.create_future(), asyncio.Event()
    events = [{"type": "http.request", "body": framed(_request().SerializeToString())}]

    def receive():
        future = loop.create_future() if events else gone
        if events:
            future.set_result(events.pop())
        return future

    async def wait_for_ever(_request):
        gone.set_result({"type": "http.disconnect"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(dataplane, "infer", wait_for_ever)
    scope = {"type": "http", "path": INFER, "headers": []}
    call = asyncio.create_task(app(scope, receive, None))
    with pytest.raises(asyncio.CancelledError):
        await call
    assert cancelled.is_set()
