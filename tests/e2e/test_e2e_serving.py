"""The gateway as its users have it: a process of its own, called by the official clients."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from geventhttpclient.response import HTTPParseError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from ridgeline.datatypes import DATATYPES

ROOT = Path(__file__).parents[2]
PROTOCOLS = {"grpc": grpc_client, "http": http_client}
SLOW = 200_000  # products one after the other for an input of ones: a few tenths of a second
ONE_BY_ONE = "max_batch_size: 1 instance_group { count: 1 }"

# The field of InferTensorContents for each datatype that has one.
FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
}


@contextlib.contextmanager
def connect(gateway, protocol):
    """The official client of that protocol."""
    url = gateway.grpc_url if protocol == "grpc" else gateway.http_url
    client = PROTOCOLS[protocol].InferenceServerClient(url)
    try:
        yield client
    finally:
        client.close()


def tensors(protocol, arrays, *, binary=True):
    """The inputs of a request, by name."""
    module, inputs = PROTOCOLS[protocol], []
    for name, array in arrays.items():
        tensor = module.InferInput(name, array.shape, datatype_of(array))
        options = {} if protocol == "grpc" else {"binary_data": binary}
        inputs.append(tensor.set_data_from_numpy(array, **options))
    return inputs


def datatype_of(array):
    return next(d.name for d in DATATYPES.values() if d.numpy == array.dtype)


def ask(gateway, protocol, model, arrays, **options):
    """One inference over a connection of its own."""
    with connect(gateway, protocol) as client:
        return client.infer(model, tensors(protocol, arrays), **options)


def get(url):
    """Status and body, whatever the status."""
    try:
        with urllib.request.urlopen(f"http://{url}") as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def values(datatype):
    """Two values of a datatype, among them its largest."""
    dtype = DATATYPES[datatype].numpy
    if datatype == "BYTES":
        return np.array([["größe\0".encode(), b""]], dtype=np.object_)
    if datatype == "BOOL":
        return np.array([[True, False]])
    if dtype.kind in "iu":
        return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype=dtype)
    return np.array([[-0.0, 0.1]]).astype(dtype)


def same(left, right):
    if right.dtype.kind == "O":
        return left.tolist() == right.tolist()
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


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


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_travels_as_raw_bytes(gateway, protocol, datatype):
    array = values(datatype)

    answer = ask(gateway, protocol, f"identity_{datatype}", {"x": array}, request_id="7")

    assert same(answer.as_numpy("y"), array)
    response = answer.get_response()
    assert (response["id"] if protocol == "http" else response.id) == "7"


@pytest.mark.parametrize("datatype", FIELDS)
def test_every_datatype_travels_in_its_typed_field(gateway, datatype):
    array = values(datatype)
    request = service_pb2.ModelInferRequest(model_name=f"identity_{datatype}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, FIELDS[datatype]).extend(array.ravel().tolist())

    with grpc.insecure_channel(gateway.grpc_url) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)

    assert same(grpc_client.InferResult(response).as_numpy("y"), array)


@pytest.mark.parametrize("datatype", FIELDS)
def test_every_datatype_travels_as_json(gateway, datatype):
    array = values(datatype)
    with connect(gateway, "http") as client:
        answer = client.infer(
            f"identity_{datatype}",
            tensors("http", {"x": array}, binary=False),
            outputs=[http_client.InferRequestedOutput("y", binary_data=False)],
        )

    assert "parameters" not in answer.get_output("y")
    received = answer.as_numpy("y")
    if datatype == "BYTES":  # the client leaves texts as JSON has them
        received = np.array([[text.encode() for text in received.ravel()]], dtype=np.object_)
    assert same(received, array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_json_form_and_says_so(gateway, datatype):
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": [1, 2]}]}
    request = urllib.request.Request(
        f"http://{gateway.http_url}/v2/models/identity_{datatype}/infer", json.dumps(body).encode()
    )

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)

    with refused.value as answer:
        assert answer.code == 400
        text = json.load(answer)["error"]
    assert text == (
        f"model 'identity_{datatype}': {datatype} data of input 'x' can only be sent as binary data"
    )


def test_nan_and_infinity_travel_as_raw_bytes(gateway, protocol):
    array = np.array([[np.nan, -np.inf]], dtype=np.float32)

    assert same(ask(gateway, protocol, "identity_FP32", {"x": array}).as_numpy("y"), array)


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


def test_concurrent_callers_receive_their_own_answers_from_shared_batches(
    repository, models, start
):
    config = "max_batch_size: 32 instance_group { count: 1 }"
    repository.add("slow", models.slow(SLOW // 10), config=config)
    gateway = start()
    inputs = [np.full((1 + n % 3, 2), 1 + n / 100, np.float32) for n in range(24)]

    def call(n):
        return ask(gateway, ("grpc", "http")[n % 2], "slow", {"x": inputs[n]})

    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(call, range(24)))

    for x, answer in zip(inputs, answers, strict=True):
        assert same(answer.as_numpy("y"), x)
    assert gateway.metric("nv_inference_request_success", model="slow") == 24
    assert gateway.metric("nv_inference_exec_count", model="slow") <= 12


def test_a_poisoned_request_fails_alone_in_a_burst(repository, models, start):
    repository.add("lookup", models.lookup())
    gateway = start()

    def call(n):
        try:
            answer = ask(gateway, "grpc", "lookup", {"index": np.array([[n % 4]])})
        except InferenceServerException as error:
            return error.status()
        return answer.as_numpy("y").item()

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(call, range(32)))

    assert answers == [10, 20, 30, "StatusCode.INTERNAL"] * 8
    assert gateway.metric("nv_inference_request_failure", reason="BACKEND") == 8


def test_the_metrics_count_exactly_what_was_asked(repository, models, start):
    repository.add("m", models.dense(3, 5))
    gateway = start()
    for rows in (1, 2, 4):
        ask(gateway, "grpc", "m", {"x": np.ones((rows, 3), np.float32)})
    with pytest.raises(InferenceServerException):
        ask(gateway, "http", "m", {"x": np.ones((1, 4), np.float32)})

    values = {
        name: gateway.metric(name, model="m")
        for name in (
            "nv_inference_request_success",
            "nv_inference_count",
            "nv_inference_exec_count",
            "nv_inference_pending_request_count",
            "nv_inference_queue_duration_histogram_us_count",
            "ridgeline_batch_rows_sum",
            "ridgeline_model_flops_per_sample",
            "ridgeline_model_parameters",
            "ridgeline_model_ready",
        )
    }
    assert list(values.values()) == [3, 7, 3, 0, 3, 7, 30, 15, 1]
    assert gateway.metric("ridgeline_invalid_requests") == 1
    assert gateway.metric("nv_inference_request_duration_us") > 0
    code, result, errors = gateway.stop()
    assert (code, result, errors) == (0, {"answered_requests": 3}, "")


@pytest.fixture
def busy(repository, models, start):
    """A gateway whose only model takes its time, one request after the other."""
    repository.add("slow", models.slow(SLOW), config=ONE_BY_ONE)
    return start()


def _until(condition):
    while not condition():
        pass


def test_every_request_accepted_before_sigterm_is_answered(busy):
    inputs = [np.full((1, 2), 1 + n / 100, np.float32) for n in range(8)]

    def call(n):
        return ask(busy, ("grpc", "http")[n % 2], "slow", {"x": inputs[n]}).as_numpy("y")

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(call, n) for n in range(8)]
        _until(lambda: _accepted(busy) >= 7)  # and one with the engine
        code, result, errors = busy.stop()

    for x, answer in zip(inputs, answers, strict=True):
        assert same(answer.result(), x)
    assert (code, result, errors) == (0, {"answered_requests": 8}, "")
    with pytest.raises(OSError, match="refused"):
        get(busy.http_url + "/v2/health/live")


def _accepted(gateway):
    return gateway.metric("nv_inference_pending_request_count", model="slow") + gateway.metric(
        "nv_inference_request_success", model="slow"
    )


def test_what_cannot_be_answered_in_time_is_cut_short(repository, models, start):
    repository.add("slow", models.slow(SLOW * 100_000), config=ONE_BY_ONE)  # hours
    gateway = start("--drain-seconds", "1")
    x = {"x": np.ones((1, 2), np.float32)}

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(ask, gateway, protocol, "slow", x) for protocol in PROTOCOLS]
        _until(lambda: gateway.metric("nv_inference_pending_request_count", model="slow") >= 1)
        code, result, _ = gateway.stop()

    assert (code, result) == (0, {"answered_requests": 0})
    for call in calls:
        assert call.exception() is not None


def _given_up(gateway):
    """Whoever notices first counts it: the gateway that it is late, or that its client has gone."""
    reasons = ("CANCELED", "REJECTED")
    return sum(gateway.metric("nv_inference_request_failure", reason=each) for each in reasons)


def test_a_client_that_goes_away_gives_its_place_in_the_queue_up(busy):
    x = np.ones((1, 2), np.float32)
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(ask, busy, "grpc", "slow", {"x": x}) for _ in range(2)]
        _until(lambda: busy.metric("nv_inference_pending_request_count", model="slow") >= 1)

        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        leaving = HTTPConnection(busy.http_url)
        leaving.request("POST", "/v2/models/slow/infer", json.dumps(body))
        _until(lambda: _accepted(busy) >= 2)
        leaving.close()
        _until(lambda: busy.metric("nv_inference_request_failure", reason="CANCELED") == 1)
        while _given_up(busy) < 2:  # where it is late before it was sent, the gateway sees nothing
            with pytest.raises(InferenceServerException, match=r"DEADLINE_EX|RESOURCE_EXHAUSTED"):
                ask(busy, "grpc", "slow", {"x": x}, client_timeout=0.01)

        assert [same(call.result().as_numpy("y"), x) for call in running] == [True, True]
    code, result, errors = busy.stop()
    assert (code, result, errors) == (0, {"answered_requests": 2}, "")


def test_a_full_queue_refuses_on_both_protocols(repository, models, start):
    repository.add("slow", models.slow(SLOW), config=ONE_BY_ONE)
    gateway = start("--max-queue-size", "1")
    x = {"x": np.ones((1, 2), np.float32)}

    def call(n):
        try:
            return ask(gateway, ("grpc", "http")[n % 2], "slow", x).as_numpy("y").shape
        except InferenceServerException as error:
            return error.status(), error.message()[:48]

    with ThreadPoolExecutor(8) as threads:
        outcomes = set(threads.map(call, range(8)))

    text = "model 'slow': Exceeds maximum queue size of 1 wa"
    assert (1, 2) in outcomes
    assert outcomes <= {(1, 2), ("429", text), ("StatusCode.RESOURCE_EXHAUSTED", text)}
    assert len(outcomes) > 1


def test_two_gateways_under_mixed_load_stop_cleanly(repository, models, start):
    repository.add("m", models.slow(SLOW // 100))
    gateways = [start(), start()]
    stopping = threading.Event()

    def hammer(n):
        gateway, protocol, answered = gateways[n % 2], ("grpc", "http")[n // 2 % 2], 0
        x = np.full((1, 2), 1 + n / 10, np.float32)
        with connect(gateway, protocol) as client:
            while not stopping.is_set():
                answer = client.infer("m", tensors(protocol, {"x": x}))
                assert same(answer.as_numpy("y"), x)
                answered += 1
            with contextlib.suppress(InferenceServerException, OSError, HTTPParseError):
                while True:  # until nobody answers any more
                    client.infer("m", tensors(protocol, {"x": x}))
                    answered += 1
        return answered

    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(hammer, n) for n in range(8)]
        try:
            for gateway in gateways:
                _until(lambda g=gateway: g.metric("nv_inference_request_success", model="m") >= 50)
        finally:
            stopping.set()
            with ThreadPoolExecutor(2) as stoppers:
                endings = list(stoppers.map(lambda gateway: gateway.stop(), gateways))

    for n, (code, result, errors) in enumerate(endings):
        assert (code, errors) == (0, "")
        assert result["answered_requests"] >= sum(call.result() for call in calls[n::2])


def _serve(*flags):
    """Run the command until it ends by itself."""
    ports = ["--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    return subprocess.run(
        [sys.executable, "-m", "ridgeline", "serve", *ports, *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("flag", ["grpc_port", "http_port", "metrics_port"])
def test_a_port_that_is_taken_ends_the_start(gateway, repository, flag):
    port = gateway.ready[flag]

    ended = _serve("--repository", repository.root, f"--{flag.replace('_', '-')}={port}")

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "unclosed" not in ended.stderr


def test_a_missing_repository_ends_the_start(tmp_path):
    ended = _serve("--repository", tmp_path / "nowhere")

    assert ended.returncode == 1
    assert ended.stderr == f"ridgeline serve: there is no model repository at {tmp_path}/nowhere\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--grpc-port", "many"], "--grpc-port must be a whole number, received 'many'"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_a_flag_that_cannot_be_understood_is_wrong_usage(flags, words):
    ended = _serve(*flags)

    assert ended.returncode == 2
    assert words in ended.stderr


def test_an_unknown_key_in_the_settings_file_is_named(tmp_path):
    (tmp_path / "settings.toml").write_text("[serve]\nports = 1\n")

    ended = _serve("--config", tmp_path / "settings.toml")

    assert ended.returncode == 1
    assert "unknown key 'ports'" in ended.stderr


def test_serving_a_request_loads_no_training_framework(repository, models):
    repository.add("m", models.identity())
    program = """
import asyncio, sys
import tritonclient.grpc as client, tritonclient.http as http_client
import numpy as np
from pathlib import Path
from serving.gateway import Gateway
from serving.settings import ServeSettings

def ask(addresses):
    for module, port in ((client, addresses.grpc_port), (http_client, addresses.http_port)):
        x = np.ones((1, 2), np.float32)
        tensor = module.InferInput("x", x.shape, "FP32").set_data_from_numpy(x)
        over = module.InferenceServerClient(f"127.0.0.1:{port}")
        assert over.infer("m", [tensor]).as_numpy("y").tolist() == [[1, 1]]
        over.close()

async def main():
    settings = ServeSettings(repository=Path(sys.argv[1]), grpc_port=0, http_port=0, metrics_port=0)
    gateway = Gateway(settings)
    await gateway.start()
    await asyncio.to_thread(ask, gateway.addresses)
    await gateway.stop()

asyncio.run(main())
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, repository.root],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout.replace("'", '"')))
    assert "onnxruntime" in loaded
    assert not loaded & {"tensorflow", "keras", "tf2onnx", "torch", "jax"}
