"""/metrics for Prometheus, read from the statistics when somebody asks.

Names are those of Triton, whose dashboards then work unchanged (its counters carry no `_total`);
what Triton does not have is called ridgeline_*.
"""

import re
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.registry import Registry
from serving.served import State
from serving.statistics import NS_PER_US, FailureReason, Histogram, ModelStatistics
from serving.version import ReadyVersion

_LABELS = ("model", "version")
_NS_PER_S = 1_000_000_000

# The library writes `# TYPE name_total counter` whatever the samples are called.
_BARE_NAME = re.compile(rb"^# (HELP|TYPE) ((?:nv|ridgeline)_\w+)_total ", re.MULTILINE)

_COUNTERS: tuple[tuple[str, str, Callable[[ModelStatistics], float]], ...] = (
    ("nv_inference_request_success", "requests answered", lambda s: s.success),
    ("ridgeline_invalid_requests", "requests that do not fit the model", lambda s: s.invalid),
    ("nv_inference_count", "rows inferred", lambda s: s.inference_count),
    ("nv_inference_exec_count", "batches run", lambda s: s.execution_count),
    (
        "nv_inference_request_duration_us",
        "time in the server, summed over requests",
        lambda s: s.request_ns // NS_PER_US,
    ),
    (
        "nv_inference_queue_duration_us",
        "time waiting for the engine, summed over requests",
        lambda s: s.queue_ns // NS_PER_US,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "time packing inputs, summed over requests",
        lambda s: s.compute_input_ns // NS_PER_US,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "time in the engine, summed over requests",
        lambda s: s.compute_infer_ns // NS_PER_US,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "time dividing outputs, summed over requests",
        lambda s: s.compute_output_ns // NS_PER_US,
    ),
)
_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelStatistics], Histogram]], ...] = (
    (
        "nv_inference_request_duration_histogram_us",
        "time in the server, per request",
        lambda s: s.request_us,
    ),
    (
        "nv_inference_queue_duration_histogram_us",
        "time waiting for the engine, per request",
        lambda s: s.queue_us,
    ),
    (
        "nv_inference_compute_infer_duration_histogram_us",
        "time in the engine, per batch",
        lambda s: s.compute_infer_us,
    ),
    ("ridgeline_batch_rows", "rows of a batch", lambda s: s.batch_rows),
)


class StatisticsCollector(Collector):
    """Turns the statistics of every model version into Prometheus metrics."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand now."""
        served = list(self._registry)
        ready = [version.ready for version in served if version.ready]
        yield from _counters(ready)
        yield from _histograms(ready)
        pending = GaugeMetricFamily(
            "nv_inference_pending_request_count", "requests waiting for the engine", labels=_LABELS
        )
        for version in ready:
            pending.add_metric(_of(version), version.scheduler.waiting_requests)
        yield pending
        capacity = GaugeMetricFamily(
            "ridgeline_capacity_rows_per_second",
            "rows a second that the engine can do, by the batch times learned so far",
            labels=_LABELS,
        )
        for version in ready:
            if version.batcher is not None:
                capacity.add_metric(_of(version), version.batcher.admission.rows_per_s)
        yield capacity
        yield from _model_info(ready)
        loaded = GaugeMetricFamily("nv_model_load_duration_secs", "time to load", labels=_LABELS)
        up = GaugeMetricFamily("ridgeline_model_ready", "1 where it can answer", labels=_LABELS)
        for entry in served:
            up.add_metric((entry.name, entry.version), entry.state is State.READY)
            if entry.ready:
                loaded.add_metric((entry.name, entry.version), entry.load_ns / _NS_PER_S)
        for name in self._registry.broken:  # no version of it could even be looked at
            up.add_metric((name, ""), False)
        yield loaded
        yield up


def metrics_app(registry: Registry) -> Starlette:
    """The ASGI application that answers /metrics in Prometheus' text format."""
    collectors = CollectorRegistry()
    collectors.register(StatisticsCollector(registry))

    async def metrics(_request: Request) -> Response:
        text = _BARE_NAME.sub(rb"# \1 \2 ", generate_latest(collectors))
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(routes=[Route("/metrics", metrics)])


def _of(version: ReadyVersion) -> tuple[str, str]:
    return version.name, version.version


def _counters(ready: list[ReadyVersion]) -> Iterator[Metric]:
    for name, text, value in _COUNTERS:
        family = _raw_counter(name, text)
        for version in ready:
            family.add_sample(
                name, dict(zip(_LABELS, _of(version), strict=True)), value(version.statistics)
            )
        yield family
    name = "nv_inference_request_failure"
    family = _raw_counter(name, "requests without an answer, by reason")
    for version in ready:
        for reason in FailureReason:
            labels = {"model": version.name, "version": version.version, "reason": reason.value}
            family.add_sample(name, labels, version.statistics.failure[reason])
    yield family


def _raw_counter(name: str, text: str) -> Metric:
    """A counter whose samples have the bare name: CounterMetricFamily would add `_total`."""
    return Metric(name, text, "counter")


def _histograms(ready: list[ReadyVersion]) -> Iterator[Metric]:
    for name, text, histogram_of in _HISTOGRAMS:
        family = HistogramMetricFamily(name, text, labels=_LABELS)
        for version in ready:
            histogram = histogram_of(version.statistics)
            family.add_metric(_of(version), _cumulative(histogram), sum_value=histogram.sum)
        yield family


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*histogram.bounds, "+Inf"), list(histogram.counts), strict=True):
        total += count
        buckets.append((str(bound), total))
    return buckets


def _model_info(ready: list[ReadyVersion]) -> Iterator[Metric]:
    """What the floor is computed from, so that a dashboard can divide latency by it."""
    flops = GaugeMetricFamily(
        "ridgeline_model_flops_per_sample", "floating-point operations per sample", labels=_LABELS
    )
    parameters = GaugeMetricFamily(
        "ridgeline_model_parameters", "weights of the model", labels=_LABELS
    )
    for version in ready:
        cost = version.loaded.cost
        if cost:
            flops.add_metric(_of(version), cost.flops_per_sample)
            parameters.add_metric(_of(version), cost.parameters)
    yield flops
    yield parameters
