"""The statistics extension through the official clients; it agrees with /metrics."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

NO_DURATION = {"count": 0, "ns": 0}


@pytest.fixture
def running(repository, models, start):
    """Two models, and nothing asked of them yet."""
    repository.add("lookup", models.lookup())
    for version in (1, 3):
        config = "version_policy { all {} }"
        repository.add("dense", models.dense(2, 1), version=version, config=config)
    return start()


def _ask(client, triton, *values, model="lookup", name="index", datatype="INT64"):
    array = np.array(values, np.int64 if datatype == "INT64" else np.float32)
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    return client.infer(model, [tensor])


def test_every_counter_is_exact_over_both_protocols_and_agrees_with_the_metrics(running):
    grpc = triton_grpc.InferenceServerClient(running.grpc_url)
    http = triton_http.InferenceServerClient(running.http_url)
    for client, triton in ((grpc, triton_grpc), (http, triton_http)):
        for rows in (1, 3):
            for _ in range(5):  # the first goes the thorough way, the others are recognised
                _ask(client, triton, *([1],) * rows)
        with pytest.raises(InferenceServerException, match="lookup"):
            _ask(client, triton, [9])  # beyond the table: the kernel fails
        with pytest.raises(InferenceServerException, match="index"):
            _ask(client, triton, [1, 2])  # fits not: no request of the model

    [of_http] = http.get_inference_statistics("lookup")["model_stats"]
    [of_grpc] = grpc.get_inference_statistics("lookup", as_json=True)["model_stats"]

    assert (of_http["name"], of_http["version"]) == ("lookup", "1")
    assert (of_http["inference_count"], of_http["execution_count"]) == (40, 22)
    assert of_http["last_inference"] > 1_600_000_000_000
    counts = {name: duration["count"] for name, duration in of_http["inference_stats"].items()}
    assert counts == {
        "success": 20,
        "fail": 2,
        "queue": 20,
        "compute_input": 20,
        "compute_infer": 20,
        "compute_output": 20,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    sizes = {size["batch_size"]: size["compute_infer"]["count"] for size in of_http["batch_stats"]}
    assert sizes == {1: 12, 3: 10}
    assert (of_http["response_stats"], of_http["memory_usage"]) == ({}, [])
    assert int(of_grpc["inference_count"]) == 40
    for name in ("success", "fail", "queue", "compute_infer"):
        total = of_http["inference_stats"][name]
        assert {k: int(v) for k, v in of_grpc["inference_stats"][name].items()} == total
        assert total["ns"] > 0

    assert running.metric("nv_inference_request_success", model="lookup") == 20
    assert running.metric("nv_inference_count", model="lookup") == 40
    assert running.metric("nv_inference_exec_count", model="lookup") == 22
    assert running.metric("nv_inference_request_failure", model="lookup", reason="BACKEND") == 2
    assert running.metric("ridgeline_invalid_requests", model="lookup") == 2
    for metric, name in (("request", "success"), ("queue", "queue")):
        microseconds = running.metric(f"nv_inference_{metric}_duration_us", model="lookup")
        assert microseconds == of_http["inference_stats"][name]["ns"] // 1000


def test_statistics_are_given_for_all_models_one_or_one_version(running):
    grpc = triton_grpc.InferenceServerClient(running.grpc_url)
    http = triton_http.InferenceServerClient(running.http_url)
    for client, triton in ((grpc, triton_grpc), (http, triton_http)):
        _ask(client, triton, [1.0, 2.0], model="dense", name="x", datatype="FP32")

    def of(*asked):
        answers = (
            http.get_inference_statistics(*asked)["model_stats"],
            grpc.get_inference_statistics(*asked, as_json=True)["model_stats"],
        )
        over_http, over_grpc = (
            [(m["name"], m["version"], int(m.get("inference_count", 0))) for m in answer]
            for answer in answers
        )
        assert over_http == over_grpc
        return over_http

    assert of() == [("dense", "1", 0), ("dense", "3", 2), ("lookup", "1", 0)]
    assert of("dense") == [("dense", "1", 0), ("dense", "3", 2)]
    assert of("dense", "1") == [("dense", "1", 0)]
    [unused] = http.get_inference_statistics("lookup")["model_stats"]
    assert set(map(str, unused["inference_stats"].values())) == {str(NO_DURATION)}
    assert (unused["last_inference"], unused["batch_stats"]) == (0, [])


def test_unknown_models_and_versions_are_refused_as_triton_refuses_them(running):
    grpc = triton_grpc.InferenceServerClient(running.grpc_url)
    for path, asked in (("nope", ("nope",)), ("dense/versions/2", ("dense", "2"))):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{running.http_url}/v2/models/{path}/stats")
        assert refused.value.code == 400
        assert "is not available" in json.load(refused.value)["error"]
        with pytest.raises(InferenceServerException, match="is not available") as error:
            grpc.get_inference_statistics(*asked)
        assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
