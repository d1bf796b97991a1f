"""Dynamic batching: a batch is what arrived while the engine was busy, the most urgent first.

Requests wait in the event loop; a batch runs in a worker thread, one per instance, so that the loop
never blocks. How long batches take is learned, and a request that could not be answered in time is
refused at the door (`door.py`). Knows neither gRPC nor HTTP nor ONNX.
"""

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable

from mypy_extensions import mypyc_attr

from ridgeline.errors import DeadlineExceeded, Overloaded, RidgelineError, Unavailable
from ridgeline.model import ModelSpec
from serving.admission import Admission
from serving.alarm import Alarm
from serving.completions import MOST_DOZE_NS
from serving.door import Door
from serving.engine import Engine
from serving.execution import BatchRunner, Run
from serving.job import BatchOutputs, Job, collected
from serving.policy import BatchPolicy
from serving.service_time import ServiceTime
from serving.statistics import FailureReason, ModelStatistics
from serving.waiting import Batch, WaitingRoom, last_key_of, level_of
from serving.workers import EngineBudget, Workers

logger = logging.getLogger(__name__)

_LEAST_WAKE_NS = 1_000_000
AT_ONCE_NS = 150_000  # a batch so short runs in the event loop: a thread would cost more
_LONELY_REQUESTS, _LONELY_FACTOR = 8, 14  # after so many that came one at a time, so much longer
_SOON_NS = 1_000_000  # an instance that is free by then is given its next batch beforehand
_LONELY_GAP_NS = 60_000  # one that comes sooner after such a batch has waited for its end


@mypyc_attr(allow_interpreted_subclasses=True)
class Batcher:
    """Serves one model version: accepts requests, runs them in batches, answers each caller.

    `instances` batches may run at once, and `ahead` full ones wait for them. `clock` is monotonic,
    in nanoseconds. `service_time` may hold what was learned while warming up. A refused request
    raises `refusal`. A batch expected to take `at_once_ns` at most runs in the event loop, which is
    for engines whose time does not depend on the data (0: none); with that exception, everything
    but the run itself happens there.
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
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._engine = engine
        self._runner = BatchRunner(engine, spec=spec, clock=clock)
        self._spec = spec
        self._policy = policy
        self._statistics = statistics
        self._at_once_ns = at_once_ns
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
        self._instances, self._ahead = instances, ahead
        self._most_rows = self._max_rows  # of a batch of several requests
        self._splits = True  # whether a request that does not fit as a whole may run in parts
        self._running: list[Run] = []
        self._unsettled: deque[Run] = deque()  # in the order of starting, where that is kept
        self._budget = budget or EngineBudget(instances)
        self._completions = self._budget.completions
        self._workers = Workers(
            instances, name=f"engine-{spec.name}", completions=self._completions
        )
        self._dispatch_is_due = False
        self._alarm = Alarm(self._wake, clock=clock)
        self._unanswered = 0
        self._engine_time = service_time.copy() if service_time else ServiceTime(self._max_rows)
        self._lonely = self._at_once_end_ns = 0
        self._idle = asyncio.Event()
        self._idle.set()

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
        came_alone = not self._unanswered and now_ns > self._at_once_end_ns + _LONELY_GAP_NS
        self._lonely = self._lonely + 1 if came_alone else 0
        self._room.add(job)
        self._door.in_level[level] += 1
        self._unanswered += 1
        self._idle.clear()
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

    # --- to the engine --------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Start as many batches as may be with the engine."""
        self._dispatch_is_due = False
        while self._room.count:
            now_ns = self._clock()
            lane = self._room.next_lane()
            if not self._may_start(lane.rows, now_ns=now_ns):
                return
            first = lane.first()
            if self._set_aside(first, now_ns=now_ns):
                continue
            most_rows = self._admission.most_rows(lane, first, now_ns=now_ns)
            if self._policy.preferred_rows or self._policy.delay_ns:
                most_rows = self._delayed(lane.rows, first, most_rows, now_ns=now_ns)
                if not most_rows:
                    return
            running = len(self._running)
            waits = running >= self._instances  # for a core that this model has already
            if not waits and not self._budget.begin(own=running, retry=self._dispatch):
                return
            batch = self._room.take(
                lane, most_rows=min(most_rows, self._most_rows), splits=self._splits
            )
            self._taken(batch, now_ns=now_ns)
            if any(job.done for job in batch.jobs):
                batch = batch.without_done()
            if batch.jobs:
                self._start(batch, now_ns=now_ns)
            elif not waits:
                self._budget.end()

    def _may_start(self, rows: int, *, now_ns: int) -> bool:
        """Whether a batch of so many waiting rows may go to the engine.

        Where all instances are busy, `ahead` full batches may wait for one that will soon be free,
        so that it need not wait for the event loop. Not earlier: what waits there can no longer be
        overtaken by a request that is more urgent.
        """
        running = len(self._running)
        if running < self._instances:
            return True
        if running >= self._instances + self._ahead or rows < self._admission.best_rows:
            return False
        return min(run.expected_ns for run in self._running) - now_ns <= _SOON_NS

    def _rest(self, now_ns: int) -> None:
        """Let the loop doze where the engine gains nothing by what could be read meanwhile."""
        if len(self._running) < self._instances:
            return
        left_ns = self._admission.engine_free_ns - now_ns
        if self._room.count and self._room.next_lane().rows >= self._admission.best_rows:
            self._completions.doze(left_ns)
        elif left_ns > 2 * MOST_DOZE_NS:
            self._completions.doze(MOST_DOZE_NS)

    def _set_aside(self, job: Job, *, now_ns: int) -> bool:
        """Tell a request that it is late; or, its timeout only delays it, let it go behind all."""
        if job.deadline_ns is not None and now_ns >= job.deadline_ns:
            self._expire(job)
            return True
        level = level_of(job.key)
        if not self._policy.queues[level].delays or self._policy.preserve_ordering:
            return False
        if not job.timeout_ns or now_ns < job.arrived_ns + job.timeout_ns:
            return False
        if job.key == last_key_of(level):
            return False
        self._room.remove(job)
        job.key = last_key_of(level)
        self._room.add(job)
        return True

    def _delayed(self, rows: int, first: Job, most_rows: int, *, now_ns: int) -> int:
        """How many rows to take where the configuration asks to wait for a larger batch; 0: wait.

        A batch of a preferred size starts at once; another when its first request has waited as
        long as it may.
        """
        policy = self._policy
        preferred = [size for size in policy.preferred_rows if size <= rows]
        if preferred:
            in_time = most_rows >= self._admission.best_rows
            return preferred[-1] if in_time else min(preferred[-1], most_rows)
        if not policy.preferred_rows and rows >= self._max_rows:
            return self._max_rows
        turn_ns = int(self._admission.turn_ns * self._admission.caution)
        until_ns = min(first.arrived_ns + policy.delay_ns, first.due_ns - turn_ns)
        if now_ns < until_ns and not self._door.closed:
            self._alarm.set(until_ns)
            return 0
        return most_rows

    def _taken(self, batch: Batch, *, now_ns: int) -> None:
        """Requests that have left the queue; one that priorities hid until it was late is told."""
        for job in batch.jobs:
            if job.rows_taken == job.rows:
                self._door.in_level[level_of(job.key)] -= 1
            if job.deadline_ns is not None and now_ns >= job.deadline_ns:
                self._expire(job)

    def _start(self, batch: Batch, *, now_ns: int) -> None:
        begin_ns = max(now_ns, self._free_at())
        expected_ns = self._admission.expect(batch, begin_ns=begin_ns)
        alone = not self._running and not self._room.count
        run = Run(batch, started_ns=now_ns, expected_ns=expected_ns, alone=alone)
        self._door.forget_refusals()
        self._running.append(run)
        if self._policy.preserve_ordering:
            self._unsettled.append(run)
        self._admission.engine_free_ns = self._free_at()
        if alone and self._goes_at_once(batch):
            self._runner.execute(run)
            self._deliver(run)
            self._at_once_end_ns = self._clock()
            return
        self._workers.run(
            functools.partial(self._runner.execute, run), done=functools.partial(self._deliver, run)
        )

    def _goes_at_once(self, batch: Batch) -> bool:
        """Whether a batch is so short that the event loop had better run it itself.

        Handing it to a thread and back takes longer than a tiny network does. While requests come
        one at a time, nobody waits for the loop, and the limit is higher.
        """
        if batch.jobs[0].shape_key is not None:
            return False
        lonely = self._lonely >= _LONELY_REQUESTS
        limit_ns = self._at_once_ns * (_LONELY_FACTOR if lonely else 1)
        return 0 < self._engine_time.predict_ns(batch.rows) <= limit_ns

    # --- back to the callers --------------------------------------------------------------------

    def _deliver(self, run: Run) -> None:
        """A batch has ended: answer its callers; where asked, not before those of earlier ones."""
        now_ns = self._clock()
        run.ended = True
        self._door.forget_refusals()
        self._running.remove(run)
        if len(self._running) < self._instances:
            self._budget.end()  # else a batch that waited takes over
        self._admission.engine_free_ns = self._free_at()
        if run.outputs is not None:
            self._admission.learn(run.batch, took_ns=now_ns - run.started_ns)
            if run.batch.jobs[0].shape_key is None:
                self._engine_time.observe(rows=run.batch.rows, took_ns=run.times.total_ns)
        if self._room.count:
            self._dispatch()  # first, so that the engine works while answers are sent
        if not self._policy.preserve_ordering:
            self._settle(run, now_ns=now_ns)
        else:
            while self._unsettled and self._unsettled[0].ended:
                self._settle(self._unsettled.popleft(), now_ns=now_ns)

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

    def _free_at(self) -> int:
        """When the next instance is expected to be free; 0 for one that is."""
        waiting = len(self._running) - self._instances
        if waiting < 0:
            return 0
        return sorted(run.expected_ns for run in self._running)[waiting]

    def _wake(self) -> None:
        """Answer those whose deadline has passed, also while the engine is busy."""
        now_ns = self._clock()
        lanes = list(self._room.lanes.values())
        next_ns = [at_ns for lane in lanes if (at_ns := lane.next_due_ns(now_ns)) is not None]
        waiting = [job for lane in lanes for job in lane.due_by(now_ns)]
        waiting += [job for run in self._running if not run.begun for job in run.batch.jobs]
        for job in waiting:
            if job.deadline_ns is None or job.done:
                continue
            if now_ns >= job.deadline_ns:
                self._expire(job)
            else:
                next_ns.append(job.deadline_ns)
        if next_ns:
            self._alarm.set(max(min(next_ns), now_ns + _LEAST_WAKE_NS))
        if self._room.count and not self._dispatch_is_due:
            self._dispatch()
