"""The gRPC methods on both front ends: grpcio's handlers, and ours with grpcio as its client."""

import asyncio
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from ridgeline.errors import InvalidInput, Overloaded, Unavailable
from serving.dataplane import EXTENSIONS, DataPlane
from serving.protocol.grpc_http2 import GrpcService
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

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str], ...]
    ) -> None:
        raise Aborted(code, details, trailing_metadata)


@asynccontextmanager
async def through_grpcio(dataplane):
    """A function that calls a method by its path, as grpcio's server does."""
    handlers = Handlers(dataplane)

    async def call(path, request, *, seconds_left=None):
        handler = handlers.service(SimpleNamespace(method=path))
        given = handler.request_deserializer(request.SerializeToString())
        answer = await handler.unary_unary(given, Context(seconds_left=seconds_left))
        return RESPONSES[path].FromString(handler.response_serializer(answer))

    yield call


@asynccontextmanager
async def through_direct(dataplane):
    """A function that calls a method by its path, as a client of our own front end does."""
    service = GrpcService(dataplane, max_request_bytes=2**20)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(service.connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def call(path, request, *, seconds_left=None):
            method = channel.unary_unary(path)
            try:
                data = await method(request.SerializeToString(), timeout=seconds_left)
            except grpc.aio.AioRpcError as error:
                metadata = tuple(map(tuple, error.trailing_metadata()))
                raise Aborted(error.code(), error.details(), metadata) from None
            return RESPONSES[path].FromString(data)

        yield call
    server.close()
    for connection in list(service.connections):
        connection.abort()
    while service.connections:
        await asyncio.sleep(0)


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


@pytest.fixture(params=[through_grpcio, through_direct])
async def call(request, dataplane):
    async with request.param(dataplane) as call:
        yield call


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
    assert metadata.extensions == list(EXTENSIONS)


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
        (_request(model_name="broken"), grpc.StatusCode.NOT_FOUND, "'broken' has no available"),
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

    # The header field has few digits: a client rounds.
    assert begin_ns + 900 * 10**9 <= deadlines[0] <= end_ns + 1_100 * 10**9
    assert deadlines[1] is None


async def test_a_request_that_comes_too_late_is_answered_as_such(call):
    with pytest.raises(Aborted) as aborted:
        # Not 0: what grpc's client makes of that may be answered before its own timer rings.
        await call(f"{INFERENCE}ModelInfer", _request(), seconds_left=-1)

    assert aborted.value.args[0] == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("retry_after_ns", [None, 1, 1_000_000, 1_000_001])
@pytest.mark.parametrize("kind", [Overloaded, Unavailable])
async def test_a_refusal_says_when_to_try_again(call, dataplane, monkeypatch, kind, retry_after_ns):
    async def refuse(_request):
        raise kind("too much to do", retry_after_ns=retry_after_ns)

    monkeypatch.setattr(dataplane, "infer", refuse)
    with pytest.raises(Aborted, match="too much to do") as aborted:
        await call(f"{INFERENCE}ModelInfer", _request())

    expected = {1: "1", 1_000_000: "1", 1_000_001: "2"}.get(retry_after_ns)
    assert dict(aborted.value.args[2]).get("grpc-retry-pushback-ms") == expected


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
