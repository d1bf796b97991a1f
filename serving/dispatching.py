"""From the waiting room to the engine and back: when a batch starts, how large it is, and where.

A batch runs in a worker thread, one per instance, so that the event loop never blocks; or, where
that would cost more than the batch itself, in the loop.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from ridgeline.errors import Unavailable
from ridgeline.model import ModelSpec
from serving.alarm import Alarm
from serving.callers import Callers
from serving.completions import MOST_DOZE_NS
from serving.engine import Engine
from serving.execution import BatchRunner, Run
from serving.job import Job
from serving.lone_runs import Bind, LoneRuns
from serving.policy import BatchPolicy
from serving.service_time import ServiceTime
from serving.statistics import ModelStatistics
from serving.waiting import Batch, last_key_of, level_of
from serving.workers import EngineBudget, Workers

_LEAST_WAKE_NS: Final = 1_000_000
# After so many requests that came one at a time, so much longer.
LONELY_REQUESTS: Final = 8
_LONELY_FACTOR: Final = 14
_SOON_NS: Final = 1_000_000  # an instance that is free by then is given its next batch beforehand


@mypyc_attr(allow_interpreted_subclasses=True)
class Dispatcher(Callers):
    """Runs what waits for one model in batches; its arguments are those of `Batcher`."""

    def __init__(
        self,
        engine: Engine,
        *,
        spec: ModelSpec,
        policy: BatchPolicy,
        statistics: ModelStatistics,
        instances: int,
        service_time: ServiceTime | None,
        refusal: type[Unavailable],
        budget: EngineBudget | None,
        ahead: int,
        at_once_ns: int,
        bind: Bind | None,
        clock: Callable[[], int],
    ) -> None:
        super().__init__(
            spec=spec,
            policy=policy,
            statistics=statistics,
            instances=instances,
            service_time=service_time,
            refusal=refusal,
            clock=clock,
        )
        self._engine = engine
        self._runner = BatchRunner(engine, spec=spec, clock=clock)
        self._at_once_ns = at_once_ns
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
        self._engine_time = service_time.copy() if service_time else ServiceTime(self._max_rows)
        self._lone = LoneRuns(bind, policy=policy, names=self._names, clock=clock)
        self._lonely = 0  # requests that came one at a time; each other one halves it

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

        Where all instances are busy, `ahead` batches may wait for one that will soon be free, so
        that it need not wait for the event loop. Not earlier: what waits there can no longer be
        overtaken by a request that is more urgent.
        """
        running = len(self._running)
        if running < self._instances:
            return True
        if running >= self._instances + self._ahead or rows < self._least_ahead():
            return False
        return min(run.expected_ns for run in self._running) - now_ns <= _SOON_NS

    def _least_ahead(self) -> int:
        """How many rows may go ahead: a full batch, or, where the loop has a core for itself, half.

        Then the engine need not wait for those whose answers are on their way: clients that wait
        for them would else march in step with it, and each core stand still in turn.
        """
        best_rows = self._admission.best_rows
        return (best_rows + 1) // 2 if self._budget.cores > self._instances else best_rows

    def _rest(self, now_ns: int) -> None:
        """Let the loop doze where the engine gains nothing by what could be read meanwhile."""
        if len(self._running) < self._instances:
            return
        if self._room.count and self._room.next_lane().rows >= self._admission.best_rows:
            self._completions.doze()  # the end of a batch ends it
        elif self._admission.engine_free_ns - now_ns > 2 * MOST_DOZE_NS:
            self._completions.doze()

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
            self._deliver(run, in_loop=True)
            return
        self._workers.run(
            functools.partial(self._runner.execute, run), done=functools.partial(self._deliver, run)
        )

    def _ran_in_loop(self, then: Callable[[], None]) -> None:
        """A batch has run in the loop: `then` what has time until it has read who came meanwhile.

        Who is read till then has waited, and did not come alone.
        """
        self._budget.just_ran += 1
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._has_read, then)

    def _has_read(self, then: Callable[[], None]) -> None:
        self._budget.just_ran -= 1
        then()

    def _goes_at_once(self, batch: Batch) -> bool:
        """Whether a batch is so short that the event loop had better run it itself.

        Handing it to a thread and back takes longer than a tiny network does. While requests come
        one at a time, nobody waits for the loop, and the limit is higher.
        """
        if batch.jobs[0].shape_key is not None:
            return False
        return 0 < self._engine_time.predict_ns(batch.rows) <= self._most_at_once_ns()

    def _most_at_once_ns(self) -> int:
        lonely = self._lonely >= LONELY_REQUESTS
        return self._at_once_ns * (_LONELY_FACTOR if lonely else 1)

    def _deliver(self, run: Run, *, in_loop: bool = False) -> None:
        """A batch has ended: answer its callers; where asked, not before those of earlier ones."""
        now_ns = self._clock()
        run.ended = True
        self._door.forget_refusals()
        self._running.remove(run)
        if len(self._running) < self._instances:
            self._budget.end()  # else a batch that waited takes over
        self._admission.engine_free_ns = self._free_at()
        learn = functools.partial(self._learn, run, now_ns=now_ns, backlog=self._has_backlog())
        if self._room.count:
            learn()
            self._dispatch()  # first, so that the engine works while answers are sent
            self._settle_in_order(run, now_ns=now_ns)
            return
        self._settle_in_order(run, now_ns=now_ns)  # nobody waits but for these answers
        if in_loop:
            self._ran_in_loop(learn)
        else:
            learn()

    def _learn(self, run: Run, *, now_ns: int, backlog: bool) -> None:
        """Take note of how long a batch took, unless it failed."""
        if run.outputs is None:
            return
        took_ns = now_ns - run.started_ns
        self._admission.learn(run.batch, took_ns=took_ns, now_ns=now_ns, backlog=backlog)
        if run.batch.jobs[0].shape_key is None:
            self._engine_time.observe(rows=run.batch.rows, took_ns=run.times.total_ns)

    def _settle_in_order(self, run: Run, *, now_ns: int) -> None:
        if not self._policy.preserve_ordering:
            self._settle(run, now_ns=now_ns)
            return
        while self._unsettled and self._unsettled[0].ended:
            self._settle(self._unsettled.popleft(), now_ns=now_ns)

    def _has_backlog(self) -> bool:
        """Whether the next batch need wait neither for requests nor for more of them."""
        if self._policy.delay_ns or self._policy.preferred_rows:
            return False
        return bool(self._room.count) or len(self._running) >= self._instances

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
