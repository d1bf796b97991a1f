"""/metrics: exact values in Prometheus' text format, and every name in the documentation."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ridgeline.cost import ModelCost
from serving.metrics import metrics_app
from serving.served import ServedVersion, State
from serving.settings import ServeSettings
from serving.statistics import BatchTimes, FailureReason, Histogram, ModelStatistics

DOCS = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


class FakeRegistry(list):
    """Served versions; `broken` are models without any."""

    broken = {"hollow": "it holds no version"}  # noqa: RUF012


@pytest.fixture
def metrics(asgi):
    """The text of /metrics over the given versions."""

    def read(*served: ServedVersion) -> str:
        async def call() -> str:
            answer = await asgi(metrics_app(FakeRegistry(served))).call("GET", "/metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            return answer.body.decode()

        text: str = anyio.run(call)
        return text

    return read


def _ready(statistics: ModelStatistics, *, name: str = "m", cost: ModelCost | None = None):
    ready = SimpleNamespace(
        name=name,
        version="1",
        loaded=SimpleNamespace(cost=cost),
        scheduler=SimpleNamespace(waiting_requests=4),
        batcher=SimpleNamespace(admission=SimpleNamespace(rows_per_s=12.5)),
        statistics=statistics,
    )
    return ServedVersion(name, "1", State.READY, "", ready, load_ns=1_500_000_000)


def _samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, values of the labels le, model, reason, version) -> value.

    This parser adds `_total` to the names of counters.
    """
    return {
        (
            sample.name.removesuffix("_total"),
            *(v for _, v in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_values_are_those_of_the_statistics(metrics):
    statistics = ModelStatistics()
    times = BatchTimes(compute_input_ns=1_000, compute_infer_ns=20_000, compute_output_ns=3_999)
    statistics.record_batch(times, rows=3)
    statistics.record_answers(times, rows=3, requests=[(100_000, 7_000), (200_000, 8_000)])
    statistics.record_failure(FailureReason.REJECTED)
    statistics.record_invalid()

    samples = _samples(metrics(_ready(statistics, cost=ModelCost(10, 20, 80, 4, 4))))

    expected = {
        "nv_inference_request_success": 2,
        "ridgeline_invalid_requests": 1,
        "nv_inference_count": 3,
        "nv_inference_exec_count": 1,
        "nv_inference_request_duration_us": 300,
        "nv_inference_queue_duration_us": 15,
        "nv_inference_compute_input_duration_us": 2,
        "nv_inference_compute_infer_duration_us": 40,
        "nv_inference_compute_output_duration_us": 7,
        "nv_inference_pending_request_count": 4,
        "ridgeline_capacity_rows_per_second": 12.5,
        "nv_inference_request_duration_histogram_us_count": 2,
        "nv_inference_request_duration_histogram_us_sum": 300,
        "nv_inference_queue_duration_histogram_us_sum": 15,
        "nv_inference_compute_infer_duration_histogram_us_count": 1,
        "nv_inference_compute_infer_duration_histogram_us_sum": 20,
        "ridgeline_batch_rows_count": 1,
        "ridgeline_batch_rows_sum": 3,
        "nv_model_load_duration_secs": 1.5,
        "ridgeline_model_flops_per_sample": 20,
        "ridgeline_model_parameters": 20,
        "ridgeline_model_ready": 1,
    }
    assert {name: samples[name, "m", "1"] for name in expected} == expected
    failures = {
        r.value: samples["nv_inference_request_failure", "m", r.value, "1"] for r in FailureReason
    }
    assert failures == {"REJECTED": 1, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
    assert samples["nv_inference_request_duration_histogram_us_bucket", "50", "m", "1"] == 0
    assert samples["nv_inference_request_duration_histogram_us_bucket", "100", "m", "1"] == 1
    assert samples["nv_inference_request_duration_histogram_us_bucket", "+Inf", "m", "1"] == 2
    assert samples["ridgeline_batch_rows_bucket", "2", "m", "1"] == 0
    assert samples["ridgeline_batch_rows_bucket", "4", "m", "1"] == 1


def test_a_model_that_cannot_answer_is_shown_as_such(metrics):
    loading = ServedVersion("slow", "2")

    samples = _samples(metrics(loading, _ready(ModelStatistics())))

    ready = {key[1:]: value for key, value in samples.items() if key[0] == "ridgeline_model_ready"}
    assert ready == {("slow", "2"): 0, ("m", "1"): 1, ("hollow", ""): 0}
    assert ("nv_inference_count", "slow", "2") not in samples


def test_a_model_of_unknown_cost_has_no_cost_but_all_else(metrics):
    samples = _samples(metrics(_ready(ModelStatistics())))

    assert ("ridgeline_model_flops_per_sample", "m", "1") not in samples
    assert samples["nv_inference_count", "m", "1"] == 0


def test_odd_names_are_escaped(metrics):
    name = 'a"b\\c\nd'

    assert (
        _samples(metrics(_ready(ModelStatistics(), name=name)))["nv_inference_count", name, "1"]
        == 0
    )


def test_every_metric_has_one_type_and_help_under_the_name_of_its_samples(metrics):
    text = metrics(_ready(ModelStatistics(), cost=ModelCost(1, 1, 1, 1, 1)))

    types = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
    assert len(dict(types)) == len(types)
    assert [name for name, _ in types] == re.findall(r"^# HELP (\S+) \S.*$", text, re.MULTILINE)
    for family in text_string_to_metric_families(text):
        suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
        for suffix in suffixes:
            assert f"\n{family.name}{suffix}{{" in text


def test_every_metric_and_its_type_is_documented(metrics):
    text = metrics(_ready(ModelStatistics(), cost=ModelCost(1, 1, 1, 1, 1)))

    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        assert f"| `{name}` | {kind} |" in DOCS


@pytest.mark.parametrize("setting", dataclasses.fields(ServeSettings), ids=lambda s: s.name)
def test_every_setting_and_its_default_is_documented(setting):
    default = f"{setting.default:g}" if type(setting.default) is float else str(setting.default)
    default = default.replace("None", "none").replace("()", "none")

    assert re.search(rf"^\| `{setting.name}` \| `?{re.escape(default)}`? \|", DOCS, re.MULTILINE)


def test_an_observation_falls_into_the_first_bucket_that_holds_it():
    histogram = Histogram((1, 2, 5))

    for value in (0, 1, 1.5, 5, 6):
        histogram.observe(value)

    assert histogram.counts == [2, 1, 1, 1]
    assert histogram.sum == 13.5
