"""Which requests are traced, and what is told of them."""

import json

import numpy as np
import pytest

from ridgeline.errors import InvalidInput, Unsupported
from serving.dataplane import DataPlane
from serving.registry import Registry
from serving.request import InferRequest, InferResponse
from serving.settings import ServeSettings
from serving.statistics import BatchTimes
from serving.trace_settings import TraceSettings
from serving.tracing import Tracing, tracing_of

ALL = TraceSettings(("TIMESTAMPS", "TENSORS"), trace_rate=1)
ASKED = InferRequest("m", {"x": np.array([1.5])}, id="7")


class Model:
    """Answers with what it is given; None fails."""

    name, version = "m", "1"

    def __init__(self, *answers):
        self.scheduler, self._answers = self, answers

    async def infer(self, _request):
        return self._response(self._answers[0])

    async def stream(self, _request):
        for answer in self._answers:
            yield self._response(answer)

    def _response(self, answer):
        if answer is None:
            raise InvalidInput("no")
        times = BatchTimes(1, 2, 3, 10)
        return InferResponse("m", "1", {"y": np.array(answer)}, times=times, queued_ns=9)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.json"


def _written(tracing, path):
    tracing.close()
    return json.loads(path.read_text()) if path.exists() else []


def _names(events):
    named = [event["timestamps"][0] if "timestamps" in event else event for event in events]
    return [event.get("name") or event.get("activity") for event in named[1:]]


@pytest.mark.anyio
async def test_a_request_is_told_with_the_times_of_its_batch(path):
    tracing = Tracing(file=path, settings=ALL)
    await tracing.infer(ASKED, Model([2.0]))

    events = _written(tracing, path)
    stamps = {
        event["timestamps"][0]["name"]: event["timestamps"][0]["ns"]
        for event in events
        if "timestamps" in event
    }
    assert (stamps["QUEUE_START"], stamps["COMPUTE_START"]) == (9, 10)
    assert stamps["COMPUTE_END"] < stamps["INFER_RESPONSE_COMPLETE"] <= stamps["REQUEST_END"]
    computed = ("COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END")
    assert [stamps[name] for name in computed] == [11, 13, 16]
    assert [event["tensor"]["data"] for event in events if "tensor" in event] == ["1.5", "2.0"]


@pytest.mark.anyio
async def test_a_request_that_fails_is_told_too(path):
    tracing = Tracing(file=path, settings=ALL)
    with pytest.raises(InvalidInput):
        await tracing.infer(ASKED, Model(None))

    assert _names(_written(tracing, path)) == ["REQUEST_START", "TENSOR_QUEUE_INPUT", "REQUEST_END"]


@pytest.mark.anyio
async def test_every_answer_of_a_stream_is_told(path):
    tracing = Tracing(file=path, settings=TraceSettings(("TENSORS",), trace_rate=1))
    answers = [answer async for answer in tracing.stream(ASKED, Model([1], [2]))]

    assert len(answers) == 2
    names = _names(_written(tracing, path))
    assert names == ["TENSOR_QUEUE_INPUT", *["TENSOR_BACKEND_OUTPUT"] * 2]


@pytest.mark.anyio
async def test_the_time_of_each_answer_is_told_up_to_a_bound(path, monkeypatch):
    monkeypatch.setattr("serving.trace._MAX_ANSWERS", 2)
    tracing = Tracing(file=path, settings=TraceSettings(("TIMESTAMPS",), trace_rate=1))
    [_ async for _ in tracing.stream(ASKED, Model([1], [2], [3]))]

    names = _names(_written(tracing, path))
    assert names.count("INFER_RESPONSE_COMPLETE") == 2
    assert names[-1] == "REQUEST_END"


ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling { step [
  { model_name: "first" model_version: -1
    input_map { key: "x" value: "x" } output_map { key: "y" value: "between" } },
  { model_name: "second" model_version: -1
    input_map { key: "x" value: "between" } output_map { key: "y" value: "y" } }
] }
"""


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_steps_of_an_ensemble_are_children_of_its_trace(
    repository, models, settings, path, streamed
):
    for name in ("first", "second"):
        repository.add(name, models.identity(), config="max_batch_size: 8")
    (repository.root / "e" / "1").mkdir(parents=True)
    (repository.root / "e" / "config.pbtxt").write_text(ENSEMBLE)
    registry = Registry(settings)
    await registry.load()
    tracing = Tracing(file=path, settings=TraceSettings(("TIMESTAMPS",), 1, 1))
    request = InferRequest("e", {"x": np.ones((1, 2), np.float32)})

    if streamed:
        [_ async for _ in tracing.stream(request, registry.find("e"))]
    else:
        await tracing.infer(request, registry.find("e"))
    await registry.close(drain_seconds=10)

    about = [event for event in _written(tracing, path) if "model_name" in event]
    found = {event["model_name"]: (event["id"], event.get("parent_id")) for event in about}
    assert found == {"e": (1, None), "first": (2, 1), "second": (3, 1)}
    assert tracing.table()["trace_count"] == "0"  # the steps count with the whole


@pytest.mark.anyio
async def test_tensors_beyond_the_bound_are_left_out(path, monkeypatch):
    monkeypatch.setattr("serving.trace._MAX_TENSOR_BYTES", 12)
    tracing = Tracing(file=path, settings=TraceSettings(("TENSORS",), trace_rate=1))
    await tracing.infer(ASKED, Model([1]))
    assert _names(_written(tracing, path)) == ["TENSOR_QUEUE_INPUT"]


@pytest.mark.anyio
async def test_one_of_so_many_is_traced_until_the_count_is_reached(path):
    tracing = Tracing(file=path, settings=TraceSettings(("TIMESTAMPS",), 3, 2))
    for _ in range(12):
        await tracing.infer(ASKED, Model([1]))
    [_ async for _ in tracing.stream(ASKED, Model([1]))]

    assert not tracing.active
    assert tracing.table()["trace_count"] == "0"
    assert {event["id"] for event in _written(tracing, path)} == {1, 2}


@pytest.mark.anyio
async def test_a_count_goes_on_after_other_changes_and_begins_anew_where_it_is_set(path):
    tracing = Tracing(file=path, settings=ALL)
    tracing.update({"trace_count": "5"}, model="m")
    await tracing.infer(ASKED, Model([1]))
    tracing.update({"log_frequency": "3"})
    assert tracing.table("m")["trace_count"] == "4"
    assert tracing.table("m")["log_frequency"] == "3"
    tracing.update({"trace_count": "9"})
    assert (tracing.table()["trace_count"], tracing.table("m")["trace_count"]) == ("9", "4")
    tracing.update({"trace_count": "5"}, model="m")
    assert tracing.table("m")["trace_count"] == "5"
    tracing.update({"trace_count": None}, model="m")
    assert tracing.table("m")["trace_count"] == "9"
    tracing.close()


def test_a_change_is_seen_by_whoever_remembers(path):
    tracing = Tracing(file=path)
    before = tracing.generation
    tracing.update({"unknown": "1"})
    assert (tracing.generation, tracing.active) == (before, False)
    tracing.update({"trace_level": ["TIMESTAMPS"]}, model="m")
    assert (tracing.generation > before, tracing.active) == (True, True)
    tracing.update({"trace_level": []}, model="m")
    assert not tracing.active


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trace_level": "TENSORS"}, "trace_level must be a list of texts"),
        ({"trace_level": ["LOUD"]}, "received 'LOUD'"),
        ({"trace_rate": 7}, "trace_rate must be a whole number as a text, received '7'"),
        ({"trace_count": "-2"}, r"trace_count must lie in -1\.\.2147483647, received -2"),
    ],
)
def test_wrong_values_change_nothing(path, changes, words):
    tracing = Tracing(file=path)
    before = tracing.table()
    with pytest.raises(InvalidInput, match=words):
        tracing.update({"log_frequency": "3", **changes})
    assert tracing.table() == before


def test_the_file_is_chosen_where_the_server_is_started(tmp_path):
    with pytest.raises(Unsupported, match="through network protocol"):
        Tracing().update({"trace_file": None})
    with pytest.raises(InvalidInput, match="started without trace_file"):
        Tracing().update({"trace_level": ["TENSORS"]})
    with pytest.raises(InvalidInput, match="the folder of trace_file is not there"):
        Tracing(file=tmp_path / "no" / "t.json")
    with pytest.raises(InvalidInput, match="received 'LOUD'"):
        tracing_of(ServeSettings(trace_level=("LOUD",)))


@pytest.mark.anyio
async def test_the_data_plane_traces_what_it_is_told_to(repository, models, path):
    repository.add("m", models.identity())
    registry = Registry(ServeSettings(repository=repository.root, trace_file=path, trace_rate=1))
    await registry.load()
    dataplane = DataPlane(registry)
    asked = InferRequest("m", {"x": np.ones((1, 2), np.float32)})
    before = dataplane.generation
    await dataplane.infer(asked)
    dataplane.trace_settings("m", changes={"trace_level": ["TIMESTAMPS"]})
    await dataplane.infer(asked)
    [_ async for _ in dataplane.stream(asked)]
    await registry.close(drain_seconds=60)

    assert dataplane.generation > before
    assert {event["id"] for event in _written(dataplane.tracing, path)} == {1, 2}
