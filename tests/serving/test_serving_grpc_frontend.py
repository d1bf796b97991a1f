"""The RPCs, called without a connection."""

import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from ridgeline.errors import InvalidInput
from serving.dataplane import DataPlane
from serving.protocol.grpc_frontend import GrpcFrontend, HealthService, InferenceService
from serving.registry import Registry

pytestmark = pytest.mark.anyio
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Aborted(Exception):
    """What a handler's `context.abort` raises."""


class Context:
    """The part of a call's context that handlers use."""

    def __init__(self, *, seconds_left: float | None = None) -> None:
        self._seconds_left = seconds_left

    def time_remaining(self) -> float | None:
        return self._seconds_left

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


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


@pytest.fixture
def service(dataplane):
    return InferenceService(dataplane)


def _request(**fields):
    request = service_pb2.ModelInferRequest(**{"model_name": "identity", "id": "7", **fields})
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([3, 4], np.float32).tobytes())
    return request


async def test_a_live_and_ready_server_says_so(service, dataplane):
    assert (await service.ServerLive(None, Context())).live
    assert (await service.ServerReady(None, Context())).ready

    dataplane.stopping = True

    assert (await service.ServerLive(None, Context())).live
    assert not (await service.ServerReady(None, Context())).ready


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
async def test_a_model_is_ready_or_not(service, name, version, ready):
    request = service_pb2.ModelReadyRequest(name=name, version=version)

    assert (await service.ModelReady(request, Context())).ready == ready


async def test_the_server_names_itself_and_the_extensions_that_are_there(service):
    metadata = await service.ServerMetadata(None, Context())

    assert metadata.name == "ridgeline"
    assert metadata.extensions == ["binary_tensor_data", "model_configuration"]


async def test_the_metadata_show_the_batch_axis(service):
    metadata = await service.ModelMetadata(
        service_pb2.ModelMetadataRequest(name="identity"), Context()
    )

    assert (metadata.name, metadata.versions, metadata.platform) == (
        "identity",
        ["1"],
        "onnxruntime_onnx",
    )
    for tensor, name in ((metadata.inputs[0], "x"), (metadata.outputs[0], "y")):
        assert (tensor.name, tensor.datatype, tensor.shape) == (name, "FP32", [-1, 2])


async def test_the_configuration_is_complete(service):
    request = service_pb2.ModelConfigRequest(name="identity")

    config = (await service.ModelConfig(request, Context())).config

    assert (config.name, config.max_batch_size, config.backend) == ("identity", 32, "onnxruntime")
    assert "ridgeline_multiply_adds_per_sample" in config.parameters


async def test_an_inference_is_answered_with_the_id_it_came_with(service):
    response = await service.ModelInfer(_request(), Context())

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
async def test_errors_name_the_model_and_what_is_wrong(service, request_, code, words):
    with pytest.raises(Aborted) as aborted:
        await service.ModelInfer(request_, Context())

    assert aborted.value.args[0] == code
    assert words in aborted.value.args[1]


@pytest.mark.parametrize("rpc", ["ModelMetadata", "ModelConfig"])
async def test_unknown_models_are_not_found(service, rpc):
    request = service_pb2.ModelMetadataRequest(name="nope")

    with pytest.raises(Aborted, match="unknown model: 'nope'"):
        await getattr(service, rpc)(request, Context())


async def test_a_deadline_travels_into_the_queue(service, dataplane, monkeypatch):
    deadlines = []
    infer = dataplane.infer

    async def remember(request):
        deadlines.append(request.deadline_ns)
        return await infer(request)

    monkeypatch.setattr(dataplane, "infer", remember)
    begin_ns = time.monotonic_ns()
    await service.ModelInfer(_request(), Context(seconds_left=1_000))
    end_ns = time.monotonic_ns()
    await service.ModelInfer(_request(), Context())

    assert begin_ns + 1_000 * 10**9 <= deadlines[0] <= end_ns + 1_000 * 10**9
    assert deadlines[1] is None


async def test_a_request_that_comes_too_late_is_answered_as_such(service):
    with pytest.raises(Aborted) as aborted:
        await service.ModelInfer(_request(), Context(seconds_left=-1))

    assert aborted.value.args[0] == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService"])
async def test_the_health_service_follows_readiness(dataplane, name):
    service = HealthService(dataplane)
    request = health_pb2.HealthCheckRequest(service=name)
    assert (await service.Check(request, Context())).status == SERVING

    dataplane.stopping = True

    assert (await service.Check(request, Context())).status == NOT_SERVING


async def test_the_health_of_an_unknown_service_is_not_found(dataplane):
    request = health_pb2.HealthCheckRequest(service="other")

    with pytest.raises(Aborted, match="unknown service 'other'"):
        await HealthService(dataplane).Check(request, Context())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_that_is_taken_is_named(dataplane, host):
    first = GrpcFrontend(dataplane, host=host, port=0, max_request_bytes=1_000)
    await first.start()

    with pytest.raises(InvalidInput, match=rf"gRPC cannot listen on {host}:{first.port}"):
        GrpcFrontend(dataplane, host=host, port=first.port, max_request_bytes=1_000)
    await first.stop(drain_seconds=0)
