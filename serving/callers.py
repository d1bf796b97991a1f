"""What becomes of the requests that a model has accepted: an answer, a fault, or a refusal.

Whatever it is, one place counts it, and tells the caller once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from mypy_extensions import mypyc_attr

from ridgeline.errors import DeadlineExceeded, RidgelineError, Unavailable
from ridgeline.model import ModelSpec
from serving.admission import Admission
from serving.door import Door
from serving.execution import Run
from serving.job import BatchOutputs, Job, collected
from serving.policy import BatchPolicy
from serving.service_time import ServiceTime
from serving.statistics import FailureReason, ModelStatistics
from serving.waiting import WaitingRoom, level_of

logger = logging.getLogger(__name__)


@mypyc_attr(allow_interpreted_subclasses=True)
class Callers:
    """Those who wait for answers of one model: in its waiting room, or for their batch to end.

    `clock` is monotonic, in nanoseconds. Used in the event loop only.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        policy: BatchPolicy,
        statistics: ModelStatistics,
        instances: int,
        service_time: ServiceTime | None,
        refusal: type[Unavailable],
        clock: Callable[[], int],
    ) -> None:
        self._spec = spec
        self._policy = policy
        self._statistics = statistics
        self._clock = clock
        self._max_rows = spec.max_batch_size if spec.batches else 1
        self._names = [tensor.name for tensor in spec.outputs]
        self._room = WaitingRoom()
        self._admission = Admission(
            self._room,
            max_rows=self._max_rows,
            instances=instances,
            service_time=service_time,
            ordered_by_deadline=not policy.preserve_ordering,
        )
        self._door = Door(
            name=spec.name,
            policy=policy,
            room=self._room,
            admission=self._admission,
            refusal=refusal,
        )
        self._unanswered = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def _settle(self, run: Run, *, now_ns: int) -> None:
        if run.outputs is not None:
            self._answer(run, run.outputs, now_ns=now_ns)
        elif run.batch.jobs:  # it failed, and is an execution all the same
            self._statistics.record_batch(run.times, rows=run.batch.rows)
        if run.error is not None:
            for job in run.batch.jobs:
                if not job.done:
                    self._leave(job)
                    self._record_failure(job, FailureReason.BACKEND)
                    self._fail(job, run.error)
        for alone in run.retried:
            self._settle(alone, now_ns=now_ns)

    def _answer(self, run: Run, outputs: BatchOutputs, *, now_ns: int) -> None:
        """Give every request of a run its rows, and count them."""
        started_ns, counted, rows = run.started_ns, [], 0
        place = 0  # of the request's rows in the outputs
        for job, first, last in run.batch.parts():
            begin, place = place, place + last - first
            if job.done:
                continue
            whole, end = outputs, place
            if last - first != job.rows:
                part = (first, outputs, begin, place)
                parts = collected(job, part, names=self._names)
                if parts is None:
                    continue
                whole, begin, end = parts, 0, job.rows
            job.done = True
            self._admission.finished(job, now_ns=now_ns)
            counted.append((now_ns - job.arrived_ns, started_ns - job.arrived_ns))
            rows += job.rows
            try:
                job.answer(whole, begin, end)
            except Exception:
                logger.exception("an answer could not be handed over")
            self._answered()
        self._statistics.record_batch(run.times, rows=run.batch.rows)
        self._statistics.record_answers(run.times, rows=rows, requests=counted)

    # --- those that leave early -----------------------------------------------------------------

    def _expire(self, job: Job) -> None:
        self._leave(job)
        self._late(job)

    def _late(self, job: Job) -> None:
        self._admission.finished(job, now_ns=job.due_ns + 1)
        late = f"model {self._spec.name!r}: the deadline passed while the request was waiting"
        self._record_failure(job, FailureReason.REJECTED)
        self._fail(job, DeadlineExceeded(late))

    def _refuse(self, job: Job, error: RidgelineError) -> None:
        self._leave(job)
        self._record_failure(job, FailureReason.REJECTED)
        self._fail(job, error)

    def _leave(self, job: Job) -> None:
        """Take a request out of the waiting room, if it is still there."""
        self._door.forget_refusals()
        if self._room.remove(job):
            self._door.in_level[level_of(job.key)] -= 1

    def _record_failure(self, job: Job, reason: FailureReason) -> None:
        """Count a request that was accepted and gets no answer."""
        self._statistics.record_failure(reason, request_ns=self._clock() - job.arrived_ns)

    def _fail(self, job: Job, error: Exception) -> None:
        job.done = True
        try:
            job.fail(error)
        except Exception:
            logger.exception("a refusal could not be handed over")
        self._answered()

    def _answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._idle.set()

    def _waiting(self) -> Iterable[Job]:
        while self._room.count:
            yield self._room.next_lane().first()
