"""The HTTP routes, called without a socket: paths, methods, sizes, errors, clients that leave."""

import asyncio
import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from serving.dataplane import EXTENSIONS, DataPlane
from serving.protocol.http_app import http_app
from serving.registry import Registry
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio
MAX_REQUEST_BYTES = 10_000


@pytest.fixture
async def registry(repository, models, settings):
    repository.add("identity", models.identity())
    repository.add("lookup", models.lookup())
    repository.add("größe mit %20", models.identity())
    repository.add("broken", b"garbage")
    registry = Registry(settings)
    await registry.load()
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def dataplane(registry):
    return DataPlane(registry)


@pytest.fixture
def client(dataplane, asgi):
    return asgi(http_app(dataplane, max_request_bytes=MAX_REQUEST_BYTES))


def _body(*rows, **table) -> bytes:
    flat = [number for row in rows for number in row]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": flat}
    return json.dumps({"inputs": [tensor], **table}).encode()


async def _infer(client, body: bytes, *, model: str = "identity", **options):
    return await client.call("POST", f"/v2/models/{model}/infer", chunks=[body], **options)


async def test_a_live_and_ready_server_says_so(client, dataplane):
    assert (await client.call("GET", "/v2/health/live")).json == {"live": True}
    answer = await client.call("GET", "/v2/health/ready")
    assert (answer.status, answer.json) == (200, {"ready": True})

    dataplane.stopping = True

    answer = await client.call("GET", "/v2/health/ready")
    assert (answer.status, answer.json) == (503, {"ready": False})
    assert (await client.call("GET", "/v2/health/live")).status == 200
    assert (await client.call("GET", "/v2/models/identity/ready")).status == 503


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/identity/ready", 200),
        ("/v2/models/identity/versions/1/ready", 200),
        ("/v2/models/identity/versions/2/ready", 503),
        ("/v2/models/broken/ready", 503),
        ("/v2/models/nope/ready", 503),
    ],
)
async def test_a_model_is_ready_or_not(client, path, status):
    answer = await client.call("GET", path)

    assert answer.status == status
    assert answer.json["ready"] == (status == 200)
    assert answer.json["name"] == path.split("/")[3]


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_names_itself_and_the_extensions_that_are_there(client, path):
    answer = await client.call("GET", path)

    assert answer.json["name"] == "ridgeline"
    assert answer.json["extensions"] == list(EXTENSIONS)


@pytest.mark.parametrize("path", ["/v2/models/identity", "/v2/models/identity/versions/1"])
async def test_the_metadata_show_the_batch_axis(client, path):
    assert (await client.call("GET", path)).json == {
        "name": "identity",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }


async def test_the_configuration_reads_as_tritons_does(client):
    config = (await client.call("GET", "/v2/models/identity/config")).json

    assert config["name"] == "identity"
    assert config["max_batch_size"] == 32
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [2]  # numbers, where protobuf's own JSON writes texts
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert config["instance_group"] == []  # how many run at once is the server's choice
    assert config["batch_input"] == []
    assert config["parameters"]["ridgeline_parameters"] == {"string_value": "0"}


async def test_an_inference_is_answered_with_the_id_it_came_with(client):
    answer = await _infer(client, _body([1, 2], [3, 4], id="7"))

    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "identity",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}],
    }


async def test_binary_answers_tell_the_length_of_their_header(client):
    answer = await _infer(client, _body([1, 2], parameters={"binary_data_output": True}))

    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(answer.body[length:], np.float32).tolist() == [1, 2]


async def test_a_body_may_arrive_in_pieces(client):
    body = _body([1, 2])

    answer = await client.call(
        "POST", "/v2/models/identity/infer", chunks=[body[:9], b"", body[9:], b""]
    )

    assert answer.json["outputs"][0]["data"] == [1, 2]


async def test_a_name_with_odd_characters_is_found(client):
    answer = await _infer(client, _body([1, 2]), model="größe mit %20")

    assert answer.json["model_name"] == "größe mit %20"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v3", 404),
        ("GET", "/v2/health/live/", 404),  # as Triton, which does not redirect either
        ("GET", "/v2/models//ready", 404),
        ("POST", "/v2/models/identity/infer/", 404),
        ("GET", "/v2/models/identity/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2/models/identity", 405),
    ],
)
async def test_unknown_routes_and_methods_are_refused_in_json(client, method, path, status):
    answer = await client.call(method, path)

    assert answer.status == status
    assert answer.json["error"].startswith(f"{method} {path}: ")


async def test_a_method_that_is_not_allowed_says_which_are(client):
    assert (await client.call("GET", "/v2/models/identity/infer")).headers["allow"] == "POST"


async def test_head_is_answered_where_get_is(client):
    assert (await client.call("HEAD", "/v2/health/live")).status == 200


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("nope", _body([1, 2]), 404, "unknown model: 'nope' is not found"),
        ("identity/versions/9", _body([1, 2]), 404, "'identity' version '9' is not found"),
        ("broken", _body([1, 2]), 404, "version 1 is unavailable: ONNX Runtime cannot"),
        ("identity", b"{", 400, "model 'identity': the request is not valid JSON"),
        ("identity", b"", 400, "not valid JSON"),
        (
            "identity",
            b"{}",
            400,
            "model 'identity': the request needs the field 'inputs', received none",
        ),
        (
            "identity",
            _body([1, 2], outputs=[{"name": "q"}]),
            400,
            "output 'q' for model 'identity'",
        ),
        (
            "identity",
            _body([1, 2], outputs=[{"name": "y", "parameters": {"classification": -1}}]),
            400,
            "model 'identity': invalid value for 'classification' parameter of output 'y'",
        ),
    ],
)
async def test_errors_name_the_model_and_what_is_wrong(client, model, body, status, words):
    answer = await _infer(client, body, model=model)

    assert answer.status == status
    assert words in answer.json["error"]


async def test_a_refused_request_is_counted(client, registry):
    await _infer(client, b'{"inputs": []}')

    assert registry.find("identity").statistics.invalid == 1


async def test_a_kernel_that_fails_is_our_answer_500_naming_the_model(client):
    tensor = {"name": "index", "datatype": "INT64", "shape": [1, 1], "data": [9]}

    answer = await _infer(client, json.dumps({"inputs": [tensor]}).encode(), model="lookup")

    assert answer.status == 500
    assert answer.json["error"].startswith("model 'lookup': ")
    assert "indices element out of data bounds, idx=9" in answer.json["error"]


async def test_a_request_that_is_too_large_is_refused_and_its_limit_told(client):
    exactly = _body([1, 2]).ljust(MAX_REQUEST_BYTES)
    assert (await _infer(client, exactly)).status == 200

    answer = await client.call("POST", "/v2/models/identity/infer", chunks=[exactly, b" ", b"more"])

    assert answer.status == 413
    assert "larger than 10000 bytes" in answer.json["error"]


async def test_a_body_of_an_unknown_encoding_is_refused(client):
    answer = await _infer(client, b"", headers={"Content-Encoding": "br"})

    assert answer.status == 501
    assert "must be gzip, deflate or identity, received 'br'" in answer.json["error"]


async def test_a_compressed_body_is_answered_and_a_cut_one_refused(client):
    body = gzip.compress(_body([1, 2]))

    assert (await _infer(client, body, headers={"Content-Encoding": "gzip"})).status == 200
    cut = await _infer(client, body[:-4], headers={"Content-Encoding": "gzip"})
    assert cut.status == 400
    assert "the gzip request is cut off" in cut.json["error"]


async def test_a_header_length_that_is_given_twice_is_refused(dataplane):
    app = http_app(dataplane, max_request_bytes=MAX_REQUEST_BYTES)
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        sent.append(message)

    field = (b"inference-header-content-length", b"2")
    scope = {"type": "http", "method": "POST", "path": "/v2/models/identity/infer"}
    await app({**scope, "query_string": b"", "headers": [field, field]}, receive, send)

    assert sent[0]["status"] == 400


async def test_a_raw_request_is_the_input_itself(client):
    headers = {"Inference-Header-Content-Length": "0"}

    answer = await _infer(client, np.float32([1.5, -2]).tobytes(), headers=headers)

    assert answer.status == 200
    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.body[size:], np.float32).tolist() == [1.5, -2]
    assert (await _infer(client, b"abc", headers=headers)).status == 400


async def test_a_long_path_does_not_come_back_whole(client):
    answer = await client.call("GET", "/" + "x" * 10_000)

    assert len(answer.body) < 1_000


async def test_an_answer_that_json_cannot_carry_says_to_ask_for_binary_data(client):
    row = np.array([[np.nan, 1]], np.float32)
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 8},
    }
    header = json.dumps({"inputs": [tensor]}).encode()

    answer = await _infer(
        client,
        header + row.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(header))},
    )

    assert answer.status == 400
    assert "model 'identity': output 'y' holds NaN" in answer.json["error"]


@pytest.fixture
def held(registry, monkeypatch):
    """The batcher of `identity`, which starts no batch until told: its requests wait."""
    batcher = registry.find("identity").batcher
    monkeypatch.setattr(batcher, "_dispatch", lambda: None)
    return batcher


async def _until_waiting(batcher, count: int) -> None:
    while batcher.waiting_requests != count:
        await asyncio.sleep(0)


async def test_a_client_that_leaves_while_waiting_gives_its_place_up(
    client, held, registry, caplog
):
    gone = asyncio.Event()
    leaving = asyncio.create_task(_infer(client, _body([1, 2]), gone=gone))
    await _until_waiting(held, 1)

    gone.set()
    await leaving

    assert held.waiting_requests == 0
    assert registry.find("identity").statistics.failure == {FailureReason.CANCELED: 1}
    assert caplog.text == ""


async def test_a_client_that_leaves_while_sending_is_no_fault_of_ours(client, held, caplog):
    gone = asyncio.Event()
    gone.set()

    await client.call(
        "POST", "/v2/models/identity/infer", chunks=[b"{", b"more to come"], gone=gone, cut_off=True
    )

    assert held.waiting_requests == 0
    assert caplog.text == ""


async def test_a_server_that_cancels_a_request_is_not_taken_for_a_client_that_left(client, held):
    request = asyncio.create_task(_infer(client, _body([1, 2])))
    await _until_waiting(held, 1)

    request.cancel()

    with pytest.raises(asyncio.CancelledError):
        await request


@pytest.fixture
async def like_triton(repository, models, settings, asgi):
    """The application where Triton's codes are asked for."""
    repository.add("identity", models.identity())
    registry = Registry(replace(settings, status_codes="triton"))
    await registry.load()
    yield asgi(http_app(DataPlane(registry), max_request_bytes=MAX_REQUEST_BYTES))
    await registry.close(drain_seconds=60)


async def test_tritons_codes_are_told_where_they_are_asked_for(like_triton, tmp_path):
    client, memory = like_triton, "/v2/systemsharedmemory/region/r/register"
    key = json.dumps({"key": f"/{tmp_path.name}-nope", "byte_size": 8}).encode()

    assert (await _infer(client, b"{")).status == 500
    assert (await _infer(client, b'{"inputs": [{}]}')).status == 500
    assert (await _infer(client, b'{"inputs": []}')).status == 400  # it can be read
    assert (await client.call("POST", memory, chunks=[key])).status == 500
    assert (await client.call("GET", "/v2/models/nope/ready")).status == 400
    assert (await client.call("GET", "/v2/models/identity/versions/one/ready")).status == 404
    assert (await client.call("GET", "/v2/models/identity/ready")).status == 200
    cut = await _infer(client, _body([1, 2]), headers={"Inference-Header-Content-Length": "7.5"})
    assert cut.status == 500
    roman = b'{"log_format": "roman"}'
    assert (await client.call("POST", "/v2/logging", chunks=[roman])).status == 503


async def test_nan_and_infinity_are_numbers_where_tritons_codes_are_asked_for(like_triton):
    answer = await _infer(like_triton, b"\xef\xbb\xbf" + _body([math.nan, -math.inf]))

    assert answer.status == 200
    assert b"[NaN, -Infinity]" in answer.body
    assert np.isnan(json.loads(answer.body)["outputs"][0]["data"][0])


async def test_numbers_that_are_finite_are_written_alike_everywhere(like_triton):
    assert (await _infer(like_triton, _body([1.5, -2]))).json["outputs"][0]["data"] == [1.5, -2]


@pytest.mark.parametrize(
    "body",
    [
        b"[NaN",
        b'{"NaN": "\\ud800"}',
        b"[" * 9_000 + b"NaN",
        b"NaN" * 10,
        b'{"inputs": [NaN, 1e999]}',
        b'{"inputs": [NaN, 1%s]}' % (b"0" * 400),
        b"\xef\xbb\xbf{",
    ],
)
async def test_what_is_no_json_for_triton_either_is_refused(like_triton, body):
    assert (await _infer(like_triton, body)).status == 500


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats"])
async def test_a_version_that_is_no_number_is_not_there(client, path):
    answer = await client.call("GET", f"/v2/models/identity/versions/one{path}")

    assert answer.status == 404
