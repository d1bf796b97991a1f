"""Sends requests on schedule and notes when each was meant to be sent, was sent, was answered.

Latency counts from the intended time: in the open loop that of the schedule, in the closed loop the
moment the slot became free. A server that stalls is thus charged for every request it kept waiting,
also for those that the client could not send meanwhile ("coordinated omission" cannot occur).
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.connection import RequestFailed
from loadtest.schedule import ClosedLoop, Load, OpenLoop, poisson_arrivals_ns
from ridgeline.errors import InvalidInput

SATURATED = "CLIENT SATURATED"
_NS_PER_S = 1_000_000_000
_RETRY_S = 0.001  # a slot that was refused waits this long, or it would measure only itself
_DEAD_FAILURES, _DEAD_NS = 50, 5 * _NS_PER_S

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """What keeps a run from hanging: requests under way, and seconds to wait for the last ones."""

    max_outstanding: int = 1000
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_outstanding < 1:
            raise InvalidInput(f"max_outstanding must be positive, received {self.max_outstanding}")
        if not self.drain_s >= 0:
            raise InvalidInput(f"drain_s must not be negative, received {self.drain_s}")


@dataclass(frozen=True)
class Recording:
    """The raw times of one run, in ns from its start, one entry per request that came to an end.

    `answered` says which ended well. `failures` counts the others by status, those that were never
    sent because the client was saturated included; `unanswered` those still under way when waiting
    ended. `elapsed_ns` lasts until the last answer; `stopped` says why the run ended early.
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
    stopped: str | None = None

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
        return len(self.done_ns) + self.failures.get(SATURATED, 0) + self.unanswered


async def drive(
    send: Callable[[], Awaitable[None]],
    *,
    load: Load,
    duration_s: float,
    seed: int = 0,
    limits: Limits | None = None,
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> Recording:
    """Call `send` on the schedule of `load` for `duration_s`, and await what is under way then.

    A failure is a RequestFailed; any other exception is a fault of ours and ends the run. Where no
    request is answered any more, the run ends early and says so.
    """
    run = _Run(send, limits=limits or Limits(), clock_ns=clock_ns)
    cpu_ns = time.process_time_ns()
    async with asyncio.TaskGroup() as group:
        if isinstance(load, OpenLoop):
            arrivals_ns = poisson_arrivals_ns(load, duration_s=duration_s, seed=seed)
            await run.open_loop(arrivals_ns.tolist(), group=group)
        else:
            await run.closed_loop(load, group=group, duration_ns=int(duration_s * _NS_PER_S))
        await run.drain()
    return run.recording(
        least_ns=int(duration_s * _NS_PER_S), client_cpu_ns=time.process_time_ns() - cpu_ns
    )


class _Run:
    """The state of one run; times are ns since its start."""

    def __init__(
        self,
        send: Callable[[], Awaitable[None]],
        *,
        limits: Limits,
        clock_ns: Callable[[], int],
    ) -> None:
        self._send, self._limits, self._clock_ns = send, limits, clock_ns
        self._start_ns = clock_ns()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._intended, self._sent, self._done = array("q"), array("q"), array("q")
        self._answered = array("b")
        self._failures: Counter[str] = Counter()
        self._first_failure: str | None = None
        self._unanswered = self._failures_in_a_row = self._last_answer_ns = 0
        self._stopped: str | None = None

    def _now_ns(self) -> int:
        return self._clock_ns() - self._start_ns

    async def open_loop(self, arrivals_ns: list[int], *, group: asyncio.TaskGroup) -> None:
        for intended_ns in arrivals_ns:
            # Also when behind schedule the loop gets its turn, or no answer could come in.
            await asyncio.sleep(max(0, intended_ns - self._now_ns()) / _NS_PER_S)
            if self._stopped:
                return
            if len(self._tasks) >= self._limits.max_outstanding:
                self._fail(SATURATED, f"{len(self._tasks)} requests were under way")
            else:
                self._start(self._request(intended_ns), group=group)

    async def closed_loop(
        self, load: ClosedLoop, *, group: asyncio.TaskGroup, duration_ns: int
    ) -> None:
        for _ in range(load.concurrency):
            self._start(self._slot(duration_ns), group=group)
        # The slots end by themselves, but for those whose last request is never answered.
        await asyncio.wait(self._tasks, timeout=duration_ns / _NS_PER_S)

    async def drain(self) -> None:
        if self._tasks and not self._stopped:
            await asyncio.wait(self._tasks, timeout=self._limits.drain_s)
        for task in self._tasks:
            task.cancel()

    def recording(self, *, least_ns: int, client_cpu_ns: int) -> Recording:
        answered = np.array(self._answered, dtype=np.bool_)
        done_ns = np.array(self._done, dtype=np.int64)
        last_ns = int(done_ns[answered].max(initial=0))
        return Recording(
            intended_ns=np.array(self._intended, dtype=np.int64),
            sent_ns=np.array(self._sent, dtype=np.int64),
            done_ns=done_ns,
            answered=answered,
            failures=dict(self._failures),
            first_failure=self._first_failure,
            unanswered=self._unanswered,
            elapsed_ns=last_ns if self._stopped else max(least_ns, last_ns),
            client_cpu_ns=client_cpu_ns,
            stopped=self._stopped,
        )

    def _start(self, work: Coroutine[Any, Any, object], *, group: asyncio.TaskGroup) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _slot(self, duration_ns: int) -> None:
        free_ns = self._now_ns()
        while free_ns < duration_ns and not self._stopped:
            done_ns = await self._request(free_ns)
            if done_ns is None:
                await asyncio.sleep(_RETRY_S)
            free_ns = self._now_ns() if done_ns is None else done_ns

    async def _request(self, intended_ns: int) -> int | None:
        """Send one request; returns when it was answered, or None where it failed."""
        sent_ns = self._now_ns()
        try:
            await self._send()
        except RequestFailed as error:
            done_ns, answered = self._now_ns(), False
            self._fail(error.status, str(error))
        except asyncio.CancelledError:
            self._unanswered += 1
            raise
        else:
            done_ns, answered = self._now_ns(), True
            self._failures_in_a_row, self._last_answer_ns = 0, done_ns
        self._intended.append(intended_ns)
        self._sent.append(sent_ns)
        self._done.append(done_ns)
        self._answered.append(answered)
        return done_ns if answered else None

    def _fail(self, status: str, text: str) -> None:
        self._failures[status] += 1
        self._failures_in_a_row += 1
        self._first_failure = self._first_failure or text
        silent_ns = self._now_ns() - self._last_answer_ns
        if self._failures_in_a_row >= _DEAD_FAILURES and silent_ns >= _DEAD_NS:
            self._stopped = (
                f"the server answers no more: {self._failures_in_a_row} requests in a row failed "
                f"in {silent_ns / _NS_PER_S:.1f} s, the last with {text}"
            )
