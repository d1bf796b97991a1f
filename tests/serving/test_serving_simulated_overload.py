"""Overload on one simulated core, where reading, refusing and answering cost the engine its time.

The clock is simulated, so that no noise of the machine decides; door, admission and waiting room
are the real ones. The costs are those of a LeNet-5 behind the HTTP/2 front end on one core.
"""

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from ridgeline.errors import Overloaded, RidgelineError
from serving.admission import Admission
from serving.door import Door
from serving.job import Job
from serving.policy import BatchPolicy, QueuePolicy
from serving.service_time import ServiceTime
from serving.waiting import WaitingRoom

US, MS, S = 1_000, 1_000_000, 1_000_000_000
_MAX_ROWS = 64
_BATCH_NS, _ROW_NS = 300 * US, 20 * US  # of the engine
_ADMIT_NS, _REFUSE_NS, _ANSWER_NS, _TURN_NS = 15 * US, 11 * US, 14 * US, 60 * US  # of the rest
_DOZE_NS = 3 * MS
_ANSWERED_NS = _BATCH_NS // _MAX_ROWS + _ROW_NS + _ADMIT_NS + _ANSWER_NS  # at best


@dataclass
class Counts:
    on_time: int = 0
    late: int = 0
    refused: int = 0


class SharedCore:
    """One core that reads Poisson arrivals, refuses or admits them, runs batches, answers."""

    def __init__(
        self,
        *,
        per_s: float,
        deadlines_ns: tuple[int, ...],
        seed: int,
        rows: tuple[int, ...] = (1,),
    ) -> None:
        self.random = random.Random(seed)
        self.gap_ns, self.deadlines_ns, self.rows = S / per_s, deadlines_ns, rows
        self.now_ns = S
        self.next_ns = S + self.random.expovariate(1) * self.gap_ns
        times = ServiceTime(_MAX_ROWS)
        for rows in times.sizes:
            times.calibrate(rows=rows, took_ns=_BATCH_NS + rows * _ROW_NS)
        queue = QueuePolicy(max_requests=100_000)
        policy = BatchPolicy(queue, max_queue_bytes=S, patience_ns=60 * S)
        self.room = WaitingRoom()
        self.admission = Admission(self.room, max_rows=_MAX_ROWS, instances=1, service_time=times)
        self.door = Door(
            name="m",
            policy=policy,
            room=self.room,
            admission=self.admission,
            refusal=Overloaded,
        )
        self.counts = Counts()
        self.offered: Counter[tuple[int, int]] = Counter()  # by deadline and rows
        self.answered: Counter[tuple[int, int]] = Counter()

    def run(self, seconds: float) -> Counts:
        """What becomes of the requests of so many seconds."""
        counts = self.counts = Counts()
        self.offered.clear()
        self.answered.clear()
        end_ns = self.now_ns + seconds * S
        while self.now_ns < end_ns:
            self._read()
            if self.room.count:
                self._run_batch()
            else:
                self.now_ns = max(self.now_ns, int(self.next_ns))
        return counts

    def _read(self) -> None:
        self.now_ns += _TURN_NS
        while self.next_ns <= self.now_ns:
            self.next_ns += self.random.expovariate(1) * self.gap_ns
            left_ns = self.random.choice(self.deadlines_ns)
            kind = (left_ns, self.random.choice(self.rows))
            self.offered[kind] += 1
            if self.door.refusal_of(kind, now_ns=self.now_ns):
                self.counts.refused += 1
                self.now_ns += _REFUSE_NS
                continue
            job = Job((), rows=kind[1], size_bytes=1, deadline_ns=self.now_ns + left_ns)
            try:
                self.door.admit(job, now_ns=self.now_ns)
            except Overloaded as refusal:
                until_ns = self.now_ns + (refusal.retry_after_ns or 0)
                self.door.remember_refusal(kind, b"no", until_ns=until_ns)
                self.counts.refused += 1
                self.now_ns += _REFUSE_NS
            except RidgelineError:
                self.counts.refused += 1
                self.now_ns += _REFUSE_NS
            else:
                self.room.add(job)
                self.now_ns += _ADMIT_NS

    def _run_batch(self) -> None:
        admission, start_ns = self.admission, self.now_ns
        lane = self.room.next_lane()
        first = lane.first()
        if start_ns >= first.due_ns:
            self.room.remove(first)
            admission.finished(first, now_ns=start_ns)
            self.counts.late += 1
            return
        most_rows = admission.most_rows(lane, first, now_ns=start_ns)
        batch = self.room.take(lane, most_rows=most_rows)
        self.door.forget_refusals()
        admission.engine_free_ns = admission.expect(batch, begin_ns=start_ns)
        left_ns = (_BATCH_NS + batch.rows * _ROW_NS) * self.random.lognormvariate(0, 0.08)
        while left_ns > _DOZE_NS:
            left_ns -= _DOZE_NS
            self.now_ns += _DOZE_NS
            self._read()
        self.now_ns += int(left_ns)
        self.door.forget_refusals()
        admission.engine_free_ns = 0
        now_ns, backlog = self.now_ns, bool(self.room.count)
        admission.learn(batch, took_ns=now_ns - start_ns, now_ns=now_ns, backlog=backlog)
        for job, _, end in batch.parts():
            if end < job.rows:
                continue  # the rest of it comes later
            admission.finished(job, now_ns=now_ns)
            self.now_ns += _ANSWER_NS
            self.counts.on_time += self.now_ns <= job.due_ns
            kind = (job.due_ns - job.arrived_ns, job.rows)
            self.answered[kind] += self.now_ns <= job.due_ns
            self.counts.late += self.now_ns > job.due_ns


@pytest.mark.parametrize(
    ("times", "deadlines_ms"),
    [(1.5, (100,)), (1.5, (20, 100, 500)), (2.0, (100,))],
    ids=["1.5", "1.5 mixed", "2"],
)
def test_what_refusals_leave_of_the_core_is_spent_on_answers_in_time(times, deadlines_ms):
    per_s = times * S / _ANSWERED_NS
    core = SharedCore(per_s=per_s, deadlines_ns=tuple(ms * MS for ms in deadlines_ms), seed=1)
    core.run(0.6)  # how much the rest costs is found out under load

    counts = core.run(0.6)

    best_per_s = (S - per_s * _REFUSE_NS) / (_ANSWERED_NS - _REFUSE_NS)
    assert counts.on_time > 0.8 * 0.6 * best_per_s
    assert counts.late < 0.03 * counts.on_time


def test_neither_urgent_nor_patient_requests_are_crowded_out():
    deadlines_ns = (20 * MS, 100 * MS, 500 * MS)
    core = SharedCore(per_s=1.5 * S / _ANSWERED_NS, deadlines_ns=deadlines_ns, seed=1)
    core.run(1)

    core.run(1)

    shares = [core.answered[left_ns, 1] / core.offered[left_ns, 1] for left_ns in deadlines_ns]
    assert min(shares) > 0.6 * max(shares), shares


@pytest.mark.parametrize("times", [1.5, 3.0])
def test_nor_are_they_by_requests_of_many_rows(times):
    deadlines_ns, many = (20 * MS, 100 * MS, 500 * MS), _MAX_ROWS
    cost_ns = (1 + many) / 2 * (_BATCH_NS / _MAX_ROWS + _ROW_NS) + _ADMIT_NS + _ANSWER_NS
    core = SharedCore(per_s=times * S / cost_ns, deadlines_ns=deadlines_ns, seed=1, rows=(1, many))
    core.run(1)

    core.run(2)

    shares = {kind: core.answered[kind] / count for kind, count in core.offered.items()}
    of_many = [shares[left_ns, many] for left_ns in deadlines_ns]
    assert min(of_many) > 0.4 * max(of_many), shares
    assert all(shares[left_ns, 1] > 0.7 * shares[left_ns, many] for left_ns in deadlines_ns), shares


def test_nothing_is_refused_that_the_core_can_do():
    core = SharedCore(per_s=0.8 * S / _ANSWERED_NS, deadlines_ns=(100 * MS,), seed=1)

    counts = core.run(1)

    assert not counts.late
    assert counts.refused < 0.01 * counts.on_time


def test_an_overload_that_ends_leaves_nothing_behind():
    core = SharedCore(per_s=3 * S / _ANSWERED_NS, deadlines_ns=(100 * MS,), seed=1)
    core.run(0.6)
    core.gap_ns *= 6  # half of what it can do
    core.run(0.2)

    counts = core.run(0.5)

    assert not counts.late
    assert not counts.refused


def test_a_remembered_refusal_counts_among_those_who_come():
    core = SharedCore(per_s=1, deadlines_ns=(S,), seed=1)
    now_ns, urgency = core.now_ns, core.admission.urgency
    core.admission.engine_free_ns = now_ns + 50 * MS
    patient = Job((), rows=8, size_bytes=1, deadline_ns=now_ns + S)
    core.door.admit(patient, now_ns=now_ns)
    core.room.add(patient)
    with pytest.raises(Overloaded):
        core.door.admit(Job((), rows=1, size_bytes=1, deadline_ns=now_ns + 20 * MS), now_ns=now_ns)
    core.door.remember_refusal("urgent", b"no", until_ns=now_ns + MS)
    once = urgency.overtaking

    assert core.door.refusal_of("urgent", now_ns=now_ns) == b"no"

    assert urgency.overtaking == pytest.approx(2 * once, rel=0.05)
