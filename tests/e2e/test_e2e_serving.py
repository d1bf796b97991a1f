"""The gateway as its users have it: a process of its own, called by the official clients."""

import asyncio
import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.e2e.official_clients import PROTOCOLS, ask, connect, same, tensors


def get(url):
    """Status and body, whatever the status."""
    try:
        with urllib.request.urlopen(f"http://{url}") as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def client(gateway, protocol):
    with connect(gateway, protocol) as client:
        yield client


def test_the_server_is_live_and_ready_and_knows_which_models_are(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity_FP32")
    assert client.is_model_ready("versioned", "1")
    assert not client.is_model_ready("versioned", "2")
    assert not client.is_model_ready("garbage")
    assert not client.is_model_ready("nope")


def test_the_metadata_are_the_same_on_both_protocols(gateway):
    with connect(gateway, "grpc") as over_grpc, connect(gateway, "http") as over_http:
        server = over_http.get_server_metadata()
        model = over_http.get_model_metadata("two_inputs")

        assert over_grpc.get_server_metadata(as_json=True) == server
        in_grpc = over_grpc.get_model_metadata("two_inputs", as_json=True)

    for tensor in (*in_grpc["inputs"], *in_grpc["outputs"]):
        tensor["shape"] = [int(size) for size in tensor["shape"]]  # protobuf's JSON writes texts
    assert in_grpc == model
    assert [tensor["name"] for tensor in model["inputs"]] == ["a", "b"]
    assert model["outputs"][1] == {"name": "difference", "datatype": "FP32", "shape": [-1, 3]}


def test_the_configuration_carries_batching_and_cost(gateway):
    with connect(gateway, "grpc") as over_grpc, connect(gateway, "http") as over_http:
        config = over_grpc.get_model_config("versioned").config
        table = over_http.get_model_config("versioned")

    assert config.max_batch_size == table["max_batch_size"] == 32
    assert list(config.input[0].dims) == table["input"][0]["dims"] == [2]
    assert config.parameters["ridgeline_multiply_adds_per_sample"].string_value == "2"
    assert table["parameters"]["ridgeline_parameters"] == {"string_value": "2"}


def test_each_version_answers_for_itself_and_the_newest_by_default(gateway, protocol):
    x = {"x": np.ones((1, 2), np.float32)}

    answers = {
        version: ask(gateway, protocol, "versioned", x, model_version=version).as_numpy("y").item()
        for version in ("1", "3", "")
    }

    assert answers == {"1": 2, "3": 6, "": 6}


def test_outputs_are_given_as_asked_for(gateway, protocol):
    arrays = {name: np.full((2, 3), n, np.float32) for n, name in ((5, "a"), (3, "b"))}
    output = PROTOCOLS[protocol].InferRequestedOutput

    both = ask(gateway, protocol, "two_inputs", arrays)
    one = ask(gateway, protocol, "two_inputs", arrays, outputs=[output("difference")] * 2)

    assert both.as_numpy("sum").tolist() == [[8] * 3] * 2
    assert one.as_numpy("difference").tolist() == [[2] * 3] * 2
    assert one.as_numpy("sum") is None


def test_scalars_free_axes_empty_tensors_and_odd_names_are_served(gateway, protocol):
    scalar = np.array(3, np.float32)
    empty = np.zeros((2, 0), np.float32)
    x = np.array([[1, 2]], np.float32)

    assert same(ask(gateway, protocol, "scalar", {"x": scalar}).as_numpy("y"), scalar)
    assert ask(gateway, protocol, "free_axis", {"x": empty}).as_numpy("y").shape == (2, 0)
    assert same(ask(gateway, protocol, "größe mit %20", {"x": x}).as_numpy("y"), x)


@pytest.mark.parametrize(
    ("model", "arrays", "code", "status", "text"),
    [
        ("nope", {}, "NOT_FOUND", 404, "Request for unknown model: 'nope' is not found"),
        (
            "garbage",
            {},
            "NOT_FOUND",
            404,
            "'garbage' has no available versions: version 1 is unavailable: ONNX Runtime cannot",
        ),
        ("mismatched", {}, "NOT_FOUND", 404, "names the input 'q', but the graph has ['x']"),
        ("foreign", {}, "NOT_FOUND", 404, "the configuration asks for 'tensorrt'"),
        (
            "identity_FP32",
            {"z": np.zeros((1, 2), np.float32)},
            "INVALID_ARGUMENT",
            400,
            "unexpected inference input 'z' for model 'identity_FP32'; expected x",
        ),
        (
            "identity_FP32",
            {"x": np.zeros((1, 3), np.float32)},
            "INVALID_ARGUMENT",
            400,
            "unexpected shape for input 'x' for model 'identity_FP32'. "
            "Expected [-1, 2], got [1, 3]",
        ),
        (
            "identity_FP32",
            {"x": np.zeros((1, 2), np.int64)},
            "INVALID_ARGUMENT",
            400,
            "input 'x' has datatype INT64, model 'identity_FP32' expects FP32",
        ),
        (
            "identity_FP32",
            {"x": np.zeros((33, 2), np.float32)},
            "INVALID_ARGUMENT",
            400,
            "batch-size must be between 1 and 32 for 'identity_FP32', got 33",
        ),
        (
            "lookup",
            {"index": np.array([[3]])},
            "INTERNAL",
            500,
            "indices element out of data bounds, idx=3",
        ),
        (
            "identity_BYTES",
            {"x": np.array([[b"\xff", b""]], dtype=np.object_)},
            "INVALID_ARGUMENT",
            400,
            "model 'identity_BYTES': an element of the BYTES input 'x' is not UTF-8",
        ),
    ],
)
def test_errors_say_the_same_on_both_protocols(gateway, model, arrays, code, status, text):
    arrays = arrays or {"x": np.zeros((1, 2), np.float32)}

    for protocol, expected in (("grpc", f"StatusCode.{code}"), ("http", str(status))):
        with pytest.raises(InferenceServerException) as refused:
            ask(gateway, protocol, model, arrays)
        assert refused.value.status() == expected
        assert text in refused.value.message()
        assert repr(model) in refused.value.message()


def test_a_very_long_name_comes_back_shortened(gateway, protocol):
    with pytest.raises(InferenceServerException, match=r"unexpected inference input 'xx+ \.\.\. "):
        ask(gateway, protocol, "identity_FP32", {"x" * 50_000: np.zeros((1, 2), np.float32)})


def test_the_standard_health_service_answers(gateway):
    request = health_pb2.HealthCheckRequest
    with grpc.insecure_channel(gateway.grpc_url) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        for service in ("", "inference.GRPCInferenceService"):
            answer = health.Check(request(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            health.Check(request(service="other"))

    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_an_rpc_that_is_not_there_says_so(gateway):
    with grpc.insecure_channel(gateway.grpc_url) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelDream")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"")

    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 404), ("/v2/models/nope", 404), ("/v2/models/versioned/infer", 405), ("/v2/%ff", 404)],
)
def test_unknown_routes_and_methods_are_refused_in_json(gateway, path, status):
    code, body = get(gateway.http_url + path)

    assert code == status
    assert json.loads(body)["error"]


def test_the_asynchronous_clients_are_served_too(gateway):
    x = np.array([[1, 2]], np.float32)

    async def scenario():
        async with (
            grpc_aio.InferenceServerClient(gateway.grpc_url) as over_grpc,
            http_aio.InferenceServerClient(gateway.http_url) as over_http,
        ):
            return await asyncio.gather(
                over_grpc.infer("identity_FP32", tensors("grpc", {"x": x})),
                over_http.infer("identity_FP32", tensors("http", {"x": x})),
            )

    for answer in asyncio.run(scenario()):
        assert same(answer.as_numpy("y"), x)


def test_a_request_that_is_too_large_is_refused(repository, models, start):
    repository.add("m", models.identity(shape=("batch", "length")))
    gateway = start("--max-request-bytes", "1000")
    x = {"x": np.zeros((1, 1_000), np.float32)}

    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        ask(gateway, "grpc", "m", x)
    with pytest.raises(InferenceServerException, match="larger than 1000 bytes"):
        ask(gateway, "http", "m", x)
    assert ask(gateway, "http", "m", {"x": np.zeros((1, 9), np.float32)}).as_numpy("y").size == 9
