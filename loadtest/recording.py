"""The raw times of a run: when each request was meant to be sent, was sent, and was answered."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

VALID, INVALID = "VALID", "INVALID"

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recording:
    """The raw times of one run, in ns from its start, one entry per request that came to an end.

    Latency counts from the intended time: in an open loop that of the schedule, in a closed loop
    the moment the slot became free. A server that stalls is thus charged for every request it kept
    waiting, also for those that the client could not send meanwhile ("coordinated omission" cannot
    occur). `answered` says which ended well. `failures` counts the others by status; `unanswered`
    those still under way when waiting ended. `elapsed_ns` lasts until the last answer; `rows` holds
    the samples of each request, `client_busy` the share of a core that sending took.
    """

    intended_ns: Times
    sent_ns: Times
    done_ns: Times
    answered: npt.NDArray[np.bool_]
    failures: Mapping[str, int]
    first_failure: str | None
    unanswered: int
    elapsed_ns: int
    client_cpu_ns: int
    client_busy: float = 0.0
    rows: Times | None = None

    @property
    def latencies_ns(self) -> Times:
        """Latencies of the answered requests, from their intended times."""
        return (self.done_ns - self.intended_ns)[self.answered]

    @property
    def send_lags_ns(self) -> Times:
        """How long after its intended time each request was sent: the client's own share."""
        return self.sent_ns - self.intended_ns

    @property
    def requests(self) -> int:
        """Every request that was due, however it ended."""
        return len(self.done_ns) + self.unanswered
