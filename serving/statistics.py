"""What one model version has done, counted once; /metrics and the statistics extension read it."""

import bisect
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

NS_PER_US: Final = 1_000
_NS_PER_MS: Final = 1_000_000

# Upper bounds, three to a decade: wide enough for a perceptron and for a network of seconds.
DURATION_BOUNDS_US = tuple(step * 10**power for power in range(1, 7) for step in (1, 2, 5))
ROW_BOUNDS = tuple(2**power for power in range(11))


class FailureReason(StrEnum):
    """Why a request got no answer; the values are those of Triton's metric label `reason`."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class Histogram:
    """Counts of observations by upper bound, and their sum, as Prometheus shows them."""

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count several observations."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect.bisect_left(bounds, value)] += 1
        self.sum += sum(values)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """How long one batch took, in nanoseconds: packing inputs, the engine, splitting outputs.

    `started_ns` is when it began, on the batcher's clock; 0 where that is not known.
    """

    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    started_ns: int = 0

    @property
    def total_ns(self) -> int:
        """All of it."""
        return self.compute_input_ns + self.compute_infer_ns + self.compute_output_ns

    def __add__(self, other: "BatchTimes") -> "BatchTimes":
        return BatchTimes(
            self.compute_input_ns + other.compute_input_ns,
            self.compute_infer_ns + other.compute_infer_ns,
            self.compute_output_ns + other.compute_output_ns,
            min(self.started_ns or other.started_ns, other.started_ns or self.started_ns),
        )


@dataclass(slots=True)
class Duration:
    """How often something happened, and the nanoseconds that it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, *, times: int = 1) -> None:
        """Count it, or count it `times` times with that duration each."""
        self.count += times
        self.ns += ns * times


@dataclass(slots=True)
class BatchSizeStatistics:
    """The executions of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class ResponseStatistics:
    """The responses of one place in the stream of a decoupled model ("0" for the first)."""

    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    empty_response: Duration = field(default_factory=Duration)
    cancel: Duration = field(default_factory=Duration)


@dataclass
class ModelStatistics:
    """Counters of one model version, written by one thread only (the event loop's).

    Durations are nanoseconds. As in Triton, the durations of a batch count once per request in it,
    queue and compute durations are those of successful requests, and a batch that fails is an
    execution, too. A request that does not fit the model is none: it is counted as `invalid` only.
    """

    success: int = 0
    failure: Counter[FailureReason] = field(default_factory=Counter)
    failure_ns: int = 0
    invalid: int = 0
    inference_count: int = 0  # rows
    execution_count: int = 0  # batches
    last_inference_ms: int = 0  # since 1970: when the last batch ended; 0 before the first
    by_batch_size: dict[int, BatchSizeStatistics] = field(default_factory=dict)
    by_response: dict[str, ResponseStatistics] = field(default_factory=dict)
    request_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    request_us: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_US))
    queue_us: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_US))
    compute_infer_us: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_US))
    batch_rows: Histogram = field(default_factory=lambda: Histogram(ROW_BOUNDS))

    def record_batch(self, times: BatchTimes, *, rows: int) -> None:
        """Count one execution of the engine."""
        self.execution_count += 1
        self.last_inference_ms = time.time_ns() // _NS_PER_MS
        size = self.by_batch_size.get(rows)
        if size is None:
            size = self.by_batch_size[rows] = BatchSizeStatistics()
        size.compute_input.add(times.compute_input_ns)
        size.compute_infer.add(times.compute_infer_ns)
        size.compute_output.add(times.compute_output_ns)
        self.batch_rows.observe(rows)
        self.compute_infer_us.observe(times.compute_infer_ns / NS_PER_US)

    def record_answers(
        self, times: BatchTimes, *, rows: int, requests: Sequence[tuple[int, int]]
    ) -> None:
        """Count the requests that a batch has answered, and their rows.

        `requests` holds, for each, its nanoseconds in the server and those of them in the queue.
        """
        count = len(requests)
        self.success += count
        self.inference_count += rows
        self.compute_input_ns += count * times.compute_input_ns
        self.compute_infer_ns += count * times.compute_infer_ns
        self.compute_output_ns += count * times.compute_output_ns
        for request_ns, queue_ns in requests:
            self.request_ns += request_ns
            self.queue_ns += queue_ns
        self.request_us.observe_all([request_ns / NS_PER_US for request_ns, _ in requests])
        self.queue_us.observe_all([queue_ns / NS_PER_US for _, queue_ns in requests])

    def record_failure(self, reason: FailureReason, *, request_ns: int = 0) -> None:
        """Count one request that got no answer, and how long it was in the server."""
        self.failure[reason] += 1
        self.failure_ns += request_ns

    def record_invalid(self) -> None:
        """Count one request that does not fit the model."""
        self.invalid += 1

    def response(self, place: int) -> ResponseStatistics:
        """The counters of the responses of a decoupled model at that place in their streams."""
        return self.by_response.setdefault(str(place), ResponseStatistics())
