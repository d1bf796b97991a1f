"""Where the time of a request goes: the server's statistics joined with the client's times.

    client     from the intended to the real send time
    protocol   what is left of the time on the wire: both protocol stacks, the kernel, the way
    queue      waiting in the server until a batch takes the request
    packing    copying into the batch and out of it
    compute    the model; of that, `batch wait` is what it takes longer than for a request alone

All are means per request, in ms: means add up, percentiles do not.
"""

from dataclasses import dataclass

import numpy as np
from tritonclient.grpc import service_pb2

from loadtest.recording import Recording

_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Breakdown:
    """Means per request in ms, which add up to the mean latency; `rows_per_batch` as executed.

    `batch_wait_ms` is None where the time of a request alone is not known; it is then in `compute`.
    """

    client_ms: float
    protocol_ms: float
    queue_ms: float
    packing_ms: float
    compute_ms: float
    batch_wait_ms: float | None
    rows_per_batch: float

    @property
    def total_ms(self) -> float:
        """The mean latency."""
        parts = (self.client_ms, self.protocol_ms, self.queue_ms, self.packing_ms)
        return sum(parts) + self.compute_ms + (self.batch_wait_ms or 0.0)


@dataclass(frozen=True)
class Counters:
    """What a server has counted of one model so far; times in ns, summed over requests."""

    requests: int
    executions: int
    rows: int
    queue_ns: int
    packing_ns: int
    compute_ns: int

    @classmethod
    def of(cls, response: service_pb2.ModelStatisticsResponse) -> "Counters":
        """Summed over the versions in the answer."""
        models = response.model_stats
        statistics = [model.inference_stats for model in models]
        packing = [each.compute_input.ns + each.compute_output.ns for each in statistics]
        return cls(
            requests=sum(each.success.count for each in statistics),
            executions=sum(model.execution_count for model in models),
            rows=sum(model.inference_count for model in models),
            queue_ns=sum(each.queue.ns for each in statistics),
            packing_ns=sum(packing),
            compute_ns=sum(each.compute_infer.ns for each in statistics),
        )

    @property
    def compute_ns_per_request(self) -> float | None:
        """Of requests that were counted; None where there were none."""
        return self.compute_ns / self.requests if self.requests > 0 else None

    def since(self, before: "Counters") -> "Counters":
        """What was added."""
        names = self.__dataclass_fields__
        return Counters(**{name: getattr(self, name) - getattr(before, name) for name in names})


def breakdown(
    recording: Recording, *, counted: Counters, alone_ns: float | None = None
) -> Breakdown | None:
    """Join the times of a run with what the server counted meanwhile; None where it counted none.

    `alone_ns` is the compute time of a request that shares its batch with nobody.
    """
    answered = recording.answered
    if counted.requests <= 0 or counted.executions <= 0 or not answered.any():
        return None
    client_ns = float(np.mean((recording.sent_ns - recording.intended_ns)[answered]))
    wire_ns = float(np.mean((recording.done_ns - recording.sent_ns)[answered]))
    queue_ns, packing_ns, compute_ns = (
        total / counted.requests
        for total in (counted.queue_ns, counted.packing_ns, counted.compute_ns)
    )
    batch_wait_ns = None if alone_ns is None else max(0.0, compute_ns - alone_ns)
    # What the server attributes to none of its parts is its protocol's share, too.
    protocol_ns = max(0.0, wire_ns - queue_ns - packing_ns - compute_ns)
    return Breakdown(
        client_ms=client_ns / _NS_PER_MS,
        protocol_ms=protocol_ns / _NS_PER_MS,
        queue_ms=queue_ns / _NS_PER_MS,
        packing_ms=packing_ns / _NS_PER_MS,
        compute_ms=(compute_ns - (batch_wait_ns or 0.0)) / _NS_PER_MS,
        batch_wait_ms=None if batch_wait_ns is None else batch_wait_ns / _NS_PER_MS,
        rows_per_batch=counted.rows / counted.executions,
    )
