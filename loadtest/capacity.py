"""How much a server bears: the largest rate whose p99 holds a budget, and the way there.

The rate is searched by bisection. Each probe is judged by the confidence interval of its p99: it
holds where the upper bound is within the budget, misses where the lower bound is beyond, and is
repeated for longer where neither is so. What stays open is told, not decided by a coin.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from ridgeline.errors import InvalidInput

HOLDS, MISSES, OPEN = "holds", "misses", "open"
_CLOSE = 1.05  # bounds nearer than this are an answer
_MOST_PROBES, _MOST_REPEATS = 14, 2
_FIRST_SHARE, _STEP = 0.5, 1.6


@dataclass(frozen=True)
class Probe:
    """One rate, tried: latency in ms with the interval of p99, and how it was judged.

    Bounds are None where there were too few answers; `failed` counts requests that were refused,
    `wrong` answers that differed from those given without load.
    """

    rate_per_s: float
    answered_per_s: float
    p50_ms: float
    p99_ms: float
    p99_low_ms: float | None
    p99_high_ms: float | None
    failed: int
    duration_s: float
    wrong: int = 0

    def judged(self, budget_ms: float) -> str:
        """HOLDS, MISSES or OPEN."""
        late = self.p99_low_ms is not None and self.p99_low_ms > budget_ms
        if self.failed or self.wrong or late:
            return MISSES
        holds = self.p99_high_ms is not None and self.p99_high_ms <= budget_ms
        return HOLDS if holds else OPEN


@dataclass(frozen=True)
class Capacity:
    """The largest rate that held, the smallest that missed (None where none did), all probes."""

    budget_ms: float
    held_per_s: float | None
    missed_per_s: float | None
    open_per_s: float | None
    probes: tuple[Probe, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; the probes, by rising rate, are the latency-throughput curve."""
        probes = sorted(self.probes, key=lambda probe: probe.rate_per_s)
        rows = [asdict(probe) | {"judged": probe.judged(self.budget_ms)} for probe in probes]
        return {**asdict(self), "probes": rows}


Try = Callable[[float, float], Awaitable[Probe]]


async def search(
    attempt: Try, *, budget_ms: float, estimate_per_s: float, duration_s: float
) -> Capacity:
    """Search from `estimate_per_s`, roughly what the server bears; `attempt(rate, seconds)` tries.

    Raises InvalidInput for a budget or an estimate that is not positive.
    """
    if not (0 < budget_ms < math.inf and 0 < estimate_per_s < math.inf):
        raise InvalidInput(
            f"budget and estimate must be positive, received {budget_ms} and {estimate_per_s}"
        )
    search = _Search(attempt, budget_ms=budget_ms, duration_s=duration_s)
    rate = _FIRST_SHARE * estimate_per_s
    while len(search.probes) < _MOST_PROBES and not search.done:
        await search.judge(rate)
        rate = search.next_rate(rate)
    return search.result()


class _Search:
    def __init__(self, attempt: Try, *, budget_ms: float, duration_s: float) -> None:
        self._attempt, self._budget_ms, self._duration_s = attempt, budget_ms, duration_s
        self._held: float | None = None
        self._missed: float | None = None
        self._open: float | None = None
        self.probes: list[Probe] = []

    @property
    def done(self) -> bool:
        if self._open is not None:
            return True
        both = self._held is not None and self._missed is not None
        return both and (self._missed or 0) <= _CLOSE * (self._held or 0)

    async def judge(self, rate: float) -> None:
        duration_s = self._duration_s
        for _ in range(1 + _MOST_REPEATS):
            probe = await self._attempt(rate, duration_s)
            self.probes.append(probe)
            judged = probe.judged(self._budget_ms)
            if judged != OPEN:
                break
            duration_s *= 2
        if judged == HOLDS:
            self._held = rate
        elif judged == MISSES:
            self._missed = rate
        else:
            self._open = rate

    def next_rate(self, rate: float) -> float:
        if self._held is None:
            return rate / _STEP
        if self._missed is None:
            return rate * _STEP
        return math.sqrt(self._held * self._missed)

    def result(self) -> Capacity:
        return Capacity(
            budget_ms=self._budget_ms,
            held_per_s=self._held,
            missed_per_s=self._missed,
            open_per_s=self._open,
            probes=tuple(self.probes),
        )
