"""Who is let in to wait: the deadline and the place of a request, or its refusal."""

from collections.abc import Hashable
from typing import Final

from ridgeline.errors import DeadlineExceeded, RidgelineError, Unavailable
from serving.admission import Admission, Verdict
from serving.job import Job
from serving.policy import BatchPolicy, QueuePolicy
from serving.waiting import WaitingRoom, key_of

_NS_PER_MS: Final = 1_000_000
_LEAST_STEP_NS: Final = 100_000
_MAX_REFUSALS: Final = 256  # that are remembered


class Door:
    """The door of the waiting room of one model.

    `in_level` counts those who wait in each priority level. A refused request raises `refusal`.
    """

    def __init__(
        self,
        *,
        name: str,
        policy: BatchPolicy,
        room: WaitingRoom,
        admission: Admission,
        refusal: type[Unavailable],
    ) -> None:
        self._name = name
        self._policy = policy
        self._room = room
        self._admission = admission
        self._refusal = refusal
        self.closed = False
        self.in_level = [0] * (policy.levels + 1)
        self._refusals: dict[Hashable, tuple[bytes, int, float, int]] = {}
        self._last_refused = (0.0, 0)  # its place among who waited, and its rows; 0 of nobody

    def admit(self, job: Job, *, now_ns: int) -> int:
        """Give a request its deadline and its place, or refuse it; returns its priority level."""
        policy = self._policy
        if self.closed:
            raise Unavailable(f"model {self._name!r} is stopping and takes no new requests")
        level = policy.level_of(job.priority)
        queue = policy.queues[level]
        if self.in_level[level] >= queue.max_requests:
            raise self._refused(
                f"Exceeds maximum queue size of {queue.max_requests} waiting requests"
            )
        if self._room.size_bytes + job.size_bytes > policy.max_queue_bytes and self._room.count:
            raise self._refused(
                f"the waiting requests hold {self._room.size_bytes} bytes, "
                f"at most {policy.max_queue_bytes} may wait"
            )
        job.arrived_ns = now_ns
        order_ns = self._set_deadline(job, queue, now_ns=now_ns)
        job.key = key_of(level=level, due_ns=order_ns, now_ns=now_ns)
        verdict = self._admission.judge(job, now_ns=now_ns)
        if verdict is not None:
            self._last_refused = (verdict.place, job.rows if self._room.count else 0)
            raise self._told(verdict)
        return level

    def _set_deadline(self, job: Job, queue: QueuePolicy, *, now_ns: int) -> int:
        """Find the earliest of all deadlines; returns what decides about its place in the queue."""
        policy = self._policy
        due_ns = job.deadline_ns
        timeout_ns = queue.timeout_ns
        if job.timeout_ns and queue.overridable:
            timeout_ns = min(timeout_ns or job.timeout_ns, job.timeout_ns)
        limit_ns = 0 if queue.delays else timeout_ns
        if policy.budget_ns:
            limit_ns = min(limit_ns or policy.budget_ns, policy.budget_ns)
        if limit_ns and (due_ns is None or now_ns + limit_ns < due_ns):
            due_ns = now_ns + limit_ns
        job.deadline_ns, job.timeout_ns = due_ns, timeout_ns
        job.due_ns = now_ns + policy.patience_ns if due_ns is None else due_ns
        if policy.preserve_ordering:
            return now_ns
        if queue.delays and timeout_ns:
            return now_ns + timeout_ns
        return job.due_ns

    def _refused(self, reason: str) -> Unavailable:
        """A full queue; a batch later there is room again."""
        self._last_refused = (0.0, 0)
        return self._refusal(
            f"model {self._name!r}: {reason}; send it again later",
            retry_after_ns=self._admission.turn_ns,
        )

    def _told(self, verdict: Verdict) -> RidgelineError:
        """A refusal in words; rounded, so that the front ends put equal ones into bytes once."""
        name = self._name
        if verdict.hopeless:
            needed_ms = _rounded(verdict.needed_ns) / _NS_PER_MS
            return DeadlineExceeded(
                f"model {name!r} takes about {needed_ms:g} ms for this request alone: "
                "more than its deadline leaves"
            )
        retry_after_ns = _rounded(verdict.retry_after_ns)
        return self._refusal(
            f"model {name!r} has too much to do to answer this request, or one that it let in "
            f"before, in time; send it again in {retry_after_ns / _NS_PER_MS:g} ms",
            retry_after_ns=retry_after_ns,
        )

    # --- what was refused ------------------------------------------------------------------------

    def refusal_of(self, kind: Hashable, *, now_ns: int) -> bytes | None:
        """What was answered to a request of the same kind, where nothing has changed since.

        It counts among those who come as if it had been judged.
        """
        known = self._refusals.get(kind)
        if known is None or now_ns >= known[1]:
            return None
        self._admission.urgency.stands(known[2], rows=known[3])
        return known[0]

    def remember_refusal(self, kind: Hashable, answer: bytes, *, until_ns: int) -> None:
        """Keep what a front end answered at last, until the queue moves or that moment."""
        if len(self._refusals) >= _MAX_REFUSALS:
            self._refusals.clear()
        self._refusals[kind] = (answer, until_ns, *self._last_refused)

    def forget_refusals(self) -> None:
        """The queue has moved: requests are to be judged anew."""
        self._refusals.clear()


def _rounded(duration_ns: int) -> int:
    """The next of 0.1, 0.2, 0.5, 1, 2, 5, ... ms."""
    step = _LEAST_STEP_NS
    while True:
        for digit in (1, 2, 5):
            if digit * step >= duration_ns:
                return digit * step
        step *= 10
