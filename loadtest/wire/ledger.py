"""What is noted of each request that goes over the wire, and how it ended."""

import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np
import numpy.typing as npt

from loadtest.wire.answers import Answers

ANSWERED = 0
# How a request ended where the server told nothing; what it told is the gRPC code, or the HTTP
# status, both above 0.
UNANSWERED, GAVE_UP, NEVER_SENT, RESET, LOST, MALFORMED = -1, -2, -3, -4, -5, -6
_NAMES: dict[int, str] = {
    ANSWERED: "ANSWERED",
    UNANSWERED: "UNANSWERED",
    GAVE_UP: "GAVE UP",
    NEVER_SENT: "NEVER SENT",
    RESET: "RESET",
    LOST: "CONNECTION LOST",
    MALFORMED: "MALFORMED ANSWER",
    **{code.value[0]: code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK},
}

Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def name_of(status: int) -> str:
    """The status for people: "RESOURCE_EXHAUSTED", "HTTP 429", "GAVE UP"."""
    return _NAMES.get(status, f"HTTP {status}")


@dataclass(frozen=True)
class Entries:
    """One entry per request that was due; times in ns from the start, 0 where there is none.

    `kinds` are the places of their deadline classes. A deadline of 0 stands for none.
    """

    intended_ns: Times
    sent_ns: Times
    done_ns: Times
    statuses: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    deadlines_ns: tuple[int, ...]

    @property
    def on_time(self) -> Flags:
        """Which were answered within their deadline, counted from when they were intended."""
        deadlines_ns = np.array(self.deadlines_ns, dtype=np.int64)[self.kinds]
        taken_ns = self.done_ns - self.intended_ns
        within = (deadlines_ns == 0) | (taken_ns <= deadlines_ns)
        on_time: Flags = (self.statuses == ANSWERED) & within
        return on_time


class Ledger:
    """The entries while they are being written: plain arrays, since this is the hot path.

    Answers are kept in `answers`, where there is one.
    """

    def __init__(self, deadlines_ns: Sequence[int], *, answers: Answers | None = None) -> None:
        self.answers = answers
        self.deadlines_ns = tuple(deadlines_ns)
        self.start_ns = time.monotonic_ns()
        self.intended_ns, self.sent_ns, self.done_ns = array("q"), array("q"), array("q")
        self.statuses, self.kinds = array("q"), array("q")
        self.outstanding = 0

    def now_ns(self) -> int:
        """Nanoseconds since the start."""
        return time.monotonic_ns() - self.start_ns

    def extend(self, intended_ns: Sequence[int], *, kinds: Sequence[int]) -> range:
        """Enter requests; returns their numbers."""
        first, count = len(self.statuses), len(intended_ns)
        self.intended_ns.extend(intended_ns)
        self.kinds.extend(kinds)
        self.sent_ns.frombytes(bytes(8 * count))
        self.done_ns.frombytes(bytes(8 * count))
        self.statuses.extend([UNANSWERED] * count)
        return range(first, first + count)

    def end(self, request: int, *, status: int, now_ns: int) -> None:
        """Note how a request ended."""
        self.statuses[request] = status
        self.done_ns[request] = now_ns
        self.outstanding -= 1

    def entries(self, count: int) -> Entries:
        """The first `count` entries, for good."""
        columns = (self.intended_ns, self.sent_ns, self.done_ns, self.statuses, self.kinds)
        intended_ns, sent_ns, done_ns, statuses, kinds = (
            np.array(column[:count], dtype=np.int64) for column in columns
        )
        statuses[(statuses == UNANSWERED) & (sent_ns == 0)] = NEVER_SENT
        return Entries(intended_ns, sent_ns, done_ns, statuses, kinds, self.deadlines_ns)


class Line(Protocol):
    """A way to the server: takes numbers of requests in the ledger, and sees them end."""

    @property
    def open(self) -> bool:
        """Whether it takes requests."""

    def send(self, requests: Iterable[int]) -> None:
        """Send these, or have them wait; whatever becomes of them is put into the ledger."""

    def give_up(self) -> None:
        """End the requests whose deadline has passed, those that wait to be sent included."""

    def close(self) -> None:
        """Close it; what is still under way stays unanswered."""
