"""Traces through the official clients: settings, and the file that they make the server write."""

import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

INITIAL = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
EVENTS = [
    "REQUEST_START",
    "QUEUE_START",
    "COMPUTE_START",
    "COMPUTE_INPUT_END",
    "COMPUTE_OUTPUT_START",
    "COMPUTE_END",
    "INFER_RESPONSE_COMPLETE",
    "REQUEST_END",
]


@pytest.fixture
def trace_file(tmp_path):
    return tmp_path / "traces.json"


@pytest.fixture
def running(repository, models, start, trace_file):
    repository.add("m", models.identity())
    repository.add("other", models.identity())
    return start(f"--trace-file={trace_file}")


@pytest.fixture
def http(running):
    with triton_http.InferenceServerClient(running.http_url) as client:
        yield client


@pytest.fixture
def grpc(running):
    with triton_grpc.InferenceServerClient(running.grpc_url) as client:
        yield client


def _infer(client, module, *, model="m", request_id=""):
    tensor = module.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.float32([[0.1, 2]]))
    return client.infer(model, [tensor], request_id=request_id)


def _settings(response):
    values = {name: list(field.value) for name, field in response.settings.items()}
    return {
        name: given if name == "trace_level" else given[0]
        for name, given in values.items()
        if name != "trace_file"
    }


def test_settings_are_shown_changed_and_cleared_over_both_protocols(http, grpc, trace_file):
    assert http.get_trace_settings() == {**INITIAL, "trace_file": str(trace_file)}
    assert _settings(grpc.get_trace_settings("m")) == INITIAL
    changed = http.update_trace_settings("m", {"trace_rate": "7", "log_frequency": "9"})
    assert (changed["trace_rate"], changed["log_frequency"]) == ("7", "9")
    everybodys = grpc.update_trace_settings(
        settings={"trace_rate": "5", "trace_level": ["TENSORS", "TIMESTAMPS"]}
    )
    assert _settings(everybodys)["trace_rate"] == "5"
    own = http.get_trace_settings("m")
    assert (own["trace_rate"], own["trace_level"]) == ("7", ["TIMESTAMPS", "TENSORS"])
    cleared = grpc.update_trace_settings("m", {"trace_rate": None, "log_frequency": None})
    assert _settings(cleared)["trace_rate"] == "5"
    http.update_trace_settings(settings={"trace_rate": None, "trace_level": None})
    assert _settings(grpc.get_trace_settings()) == _settings(grpc.get_trace_settings("m"))
    assert _settings(grpc.get_trace_settings()) == INITIAL
    assert "trace" in http.get_server_metadata()["extensions"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trace_level": ["EVERYTHING"]}, "trace_level must be of OFF, TIMESTAMPS, TENSORS"),
        ({"trace_level": ["OFF", "TENSORS"]}, "OFF stands alone"),
        ({"trace_rate": "0"}, r"trace_rate must lie in 1\.\.4294967295, received 0"),
        ({"trace_count": "many"}, "trace_count must be a whole number as a text, received 'many'"),
        ({"trace_rate": ["1", "2"]}, "trace_rate must be one value, received 2"),
        ({"trace_file": "x"}, "can not be updated through network protocol"),
    ],
)
def test_wrong_settings_are_refused(http, grpc, settings, words):
    for client in (http, grpc):
        with pytest.raises(InferenceServerException, match=words):
            client.update_trace_settings(settings={"log_frequency": "3", **settings})
        assert http.get_trace_settings()["log_frequency"] == "0"


def test_a_model_that_is_not_there_has_no_settings(http, grpc):
    with pytest.raises(InferenceServerException, match="unknown model : nope") as caught:
        http.get_trace_settings("nope")
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="unknown model : nope") as caught:
        grpc.update_trace_settings("nope", {"trace_rate": "1"})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_requests_are_traced_into_the_file_also_usual_ones(http, grpc, running, trace_file):
    for client, module in ((grpc, triton_grpc), (http, triton_http)):
        for _ in range(3):  # the server knows their kind by now
            _infer(client, module)
    both = {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "1", "trace_count": "4"}
    http.update_trace_settings("m", both)
    for client, module in ((grpc, triton_grpc), (http, triton_http)):
        _infer(client, module, model="other")
        _infer(client, module)
        _infer(client, module, request_id="seven")
        assert _infer(client, module, model="other").as_numpy("y").tolist()[0][1] == 2
    assert http.get_trace_settings("m")["trace_count"] == "0"
    _infer(grpc, triton_grpc)  # no more than were asked for
    code, _, errors = running.stop()

    assert code == 0, errors
    events = json.loads(trace_file.read_text())
    assert {event["id"] for event in events} == {1, 2, 3, 4}
    second = [event for event in events if event["id"] == 2]
    about = {"id": 2, "model_name": "m", "model_version": 1, "request_id": "seven"}
    assert second[0] == about
    stamps = [event["timestamps"][0] for event in second if "timestamps" in event]
    assert [stamp["name"] for stamp in stamps] == EVENTS
    times = [stamp["ns"] for stamp in stamps]
    assert times == sorted(times)
    tensors = [(event["activity"], event["tensor"]) for event in second if "tensor" in event]
    tensor = {"data": "0.1,2.0", "shape": "1,2", "dtype": "FP32"}
    assert tensors == [
        ("TENSOR_QUEUE_INPUT", {"name": "x", **tensor}),
        ("TENSOR_BACKEND_OUTPUT", {"name": "y", **tensor}),
    ]


def test_numbered_files_hold_as_many_traces_as_asked_for(repository, models, start, trace_file):
    repository.add("m", models.identity())
    running = start(
        f"--trace-file={trace_file}",
        "--trace-level=TIMESTAMPS",
        "--trace-rate=2",
        "--trace-log-frequency=2",
    )
    with triton_grpc.InferenceServerClient(running.grpc_url) as client:
        for _ in range(7):
            _infer(client, triton_grpc)
    code, _, errors = running.stop()

    assert code == 0, errors
    assert not trace_file.exists()
    files = [trace_file.with_name(f"traces.json.{index}") for index in (0, 1)]
    ids = [[event["id"] for event in json.loads(file.read_text())] for file in files]
    assert [sorted(set(found)) for found in ids] == [[1, 2], [3]]


def test_without_a_file_nothing_can_be_traced(repository, models, start):
    repository.add("m", models.identity())
    running = start()
    with (
        triton_http.InferenceServerClient(running.http_url) as client,
        pytest.raises(InferenceServerException, match="started without trace_file"),
    ):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
