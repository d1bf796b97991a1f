"""Dynamic batching: a batch is what arrived while the engine was busy, the most urgent first.

Here requests come in, and are refused where they could not be answered in time (`door.py`), by what
was learned of how long batches take. How they run stands in `dispatching`, what becomes of them in
`callers`. Knows neither gRPC nor HTTP nor ONNX.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from mypy_extensions import mypyc_attr

from ridgeline.errors import Overloaded, RidgelineError, Unavailable
from ridgeline.model import ModelSpec
from serving.admission import Admission
from serving.dispatching import LONELY_REQUESTS, Dispatcher
from serving.engine import Engine
from serving.job import BatchOutputs, Job
from serving.lone_runs import Bind
from serving.policy import BatchPolicy
from serving.service_time import ServiceTime
from serving.statistics import BatchTimes, FailureReason, ModelStatistics
from serving.workers import EngineBudget

AT_ONCE_NS: Final = 150_000  # a batch so short runs in the event loop: a thread would cost more


@mypyc_attr(allow_interpreted_subclasses=True)
class Batcher(Dispatcher):
    """Serves one model version: accepts requests, runs them in batches, answers each caller.

    `instances` batches may run at once, and `ahead` more wait for them, full or half full. `clock`
    is monotonic, in nanoseconds. `service_time` may hold what was learned while warming up. A
    refused request raises `refusal`. A batch expected to take `at_once_ns` at most runs in the
    event loop, which is for engines whose time does not depend on the data (0: none); with that
    exception, everything but the run itself happens there. `bind` gives memory of their own to
    requests of so many rows that come alone.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        spec: ModelSpec,
        policy: BatchPolicy,
        statistics: ModelStatistics,
        instances: int,
        service_time: ServiceTime | None = None,
        refusal: type[Unavailable] = Overloaded,
        budget: EngineBudget | None = None,
        ahead: int = 0,
        at_once_ns: int = 0,
        bind: Bind | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(
            engine,
            spec=spec,
            policy=policy,
            statistics=statistics,
            instances=instances,
            service_time=service_time,
            refusal=refusal,
            budget=budget,
            ahead=ahead,
            at_once_ns=at_once_ns,
            bind=bind,
            clock=clock,
        )

    @property
    def waiting_requests(self) -> int:
        """How many accepted requests are not yet with the engine."""
        in_threads = sum(len(run.batch.jobs) for run in self._running if not run.begun)
        return self._room.count + in_threads

    @property
    def admission(self) -> Admission:
        """What is known of the time that batches take."""
        return self._admission

    def submit(self, job: Job) -> None:
        """Accept a request, whose inputs fit the model's contract; it is answered or fails later.

        Raises the refusal (Overloaded) where a queue is full or the request could not be answered
        in time, DeadlineExceeded where not even an idle engine could, Unavailable while stopping.
        """
        now_ns = self._clock()
        try:
            level = self._door.admit(job, now_ns=now_ns)
        except RidgelineError:
            self._statistics.record_failure(FailureReason.REJECTED)
            self._rest(now_ns)
            raise
        if self._unanswered or self._budget.just_ran:
            self._lonely //= 2
        else:
            self._lonely = min(self._lonely + 1, LONELY_REQUESTS)
        self._room.add(job)
        self._door.in_level[level] += 1
        if not self._unanswered:
            self._idle.clear()
        self._unanswered += 1
        if job.deadline_ns is not None:
            self._alarm.set(job.due_ns)
        if self._dispatch_is_due:
            return
        if self._may_start(self._room.lanes[job.shape_key].rows, now_ns=now_ns):
            # Once the loop has read all that has arrived: those requests share the batch.
            self._dispatch_is_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        else:
            self._rest(now_ns)

    def run_alone(
        self, payloads: Sequence[Any], *, rows: int, timeout_ns: int | None
    ) -> BatchOutputs | None:
        """The outputs for the raw inputs of a request, run at once; they hold until the next run.

        While requests come one at a time, and this one does, too. None where it has to be
        submitted.
        """
        if self._lonely < LONELY_REQUESTS or self._unanswered or self._running:
            return None
        if self._budget.just_ran:
            return None
        expected_ns = self._engine_time.predict_ns(rows)
        if not 0 < expected_ns <= self._most_at_once_ns():
            return None
        if rows > self._max_rows or self._door.closed:
            return None
        outputs = self._lone.outputs(
            payloads, rows=rows, expected_ns=expected_ns, timeout_ns=timeout_ns
        )
        if outputs is not None:
            begun_ns, written_ns = self._lone.begun_ns, self._lone.written_ns
            times = BatchTimes(written_ns - begun_ns, self._clock() - written_ns, 0, begun_ns)
            self._ran_in_loop(functools.partial(self._count_alone, times, rows))
        return outputs

    def _count_alone(self, times: BatchTimes, rows: int) -> None:
        took_ns = times.total_ns
        self._statistics.record_batch(times, rows=rows)
        self._statistics.record_answers(times, rows=rows, requests=[(took_ns, 0)])
        self._engine_time.observe(rows=rows, took_ns=took_ns)
        self._admission.service_time(None).observe(rows=rows, took_ns=took_ns)

    def refusal_of(self, kind: Hashable) -> bytes | None:
        """What was answered to a request of the same kind, where nothing has changed since.

        Counts as a refusal. Under overload it spares most requests from being judged.
        """
        now_ns = self._clock()
        answer = self._door.refusal_of(kind, now_ns=now_ns)
        if answer is not None:
            self._statistics.record_failure(FailureReason.REJECTED)
            self._rest(now_ns)
        return answer

    def remember_refusal(self, kind: Hashable, answer: bytes, *, retry_after_ns: int) -> None:
        """Keep what a front end answered, until the queue moves or it is time to try again."""
        self._door.remember_refusal(kind, answer, until_ns=self._clock() + retry_after_ns)

    def cancel(self, job: Job) -> None:
        """Drop a request whose caller has gone; its batch mates notice nothing."""
        if job.done:
            return
        job.done = True
        self._leave(job)
        self._record_failure(job, FailureReason.CANCELED)
        self._answered()

    async def close(self, *, drain_seconds: float) -> None:
        """Refuse new requests, answer the accepted ones, for `drain_seconds` at most; then stop.

        What the engine has not finished by then is cut short, and its callers receive the fault.
        """
        self._door.closed = True
        self._dispatch()  # what waits for a larger batch waits no longer
        try:
            await asyncio.wait_for(self._idle.wait(), drain_seconds)
        except TimeoutError:
            for job in self._waiting():
                self._refuse(job, Unavailable(f"model {self._spec.name!r} is stopping"))
        self._alarm.cancel()
        self._engine.stop()
        await asyncio.to_thread(self._workers.close)
