"""How long a batch takes by its rows: learned at start, then from every batch that runs.

Times are kept at a ladder of sizes and interpolated between. Each observation moves all of them by
a bounded step of its logarithm, those around it somewhat further: an outlier moves them little, a
machine that has become slower is followed within a few batches, and the best size is found out.
"""

import bisect
import math
from collections.abc import Sequence
from typing import Final

_STEP: Final = 0.15  # share of a surprise that is believed
# of it for sizes far away: what slows one size down mostly slows all. Much less, and whatever size
# is in use when others take the machine's time would seem to be the wrong one.
_SHARED_STEP: Final = 0.12
_MOST_SURPRISE: Final = math.log(2.0)
_UNSEEN_POWER: Final = 0.8  # of the rows, for the time of a size that has never run
# What a batch costs besides: threads that hand over, turns of the event loop, writes of answers.
# Measured on two cores with a network of 78 MFLOP, in batches of 6 and of 16.
BATCH_COST_NS: Final = 300_000
_GOOD_ENOUGH: Final = 0.97  # of the best rows per second: a larger batch would only delay them
_LEAST_SHARE: Final = 0.95  # of them, that is not given up for a shorter batch


def ladder(max_rows: int) -> tuple[int, ...]:
    """The sizes whose times are kept: 1, 2, 3, 4, 6, 8, 12, 16, ... and the largest."""
    sizes = {1, max_rows}
    power = 2
    while power < max_rows:
        sizes |= {power, min(max_rows, power * 3 // 2)}
        power *= 2
    return tuple(sorted(sizes))


class ServiceTime:
    """Predicts the time of a batch, in nanoseconds, for 1..max_rows rows; 0 while unknown.

    `batch_cost_ns` is not part of that time, but of the choice of the best size. Where a batch of
    that size takes longer than `limit_ns`, the best one is smaller, unless that costs more than a
    twentieth of the throughput.
    """

    def __init__(self, max_rows: int, *, batch_cost_ns: int = 0) -> None:
        self._batch_cost_ns = batch_cost_ns
        self._sizes = ladder(max_rows)
        self._times: list[float] = [0.0] * len(self._sizes)
        self._known = False
        self.limit_ns = math.inf
        self.best_rows = max_rows
        self.best_ns = 0.0  # of a batch of so many rows
        self.row_ns = 0.0  # of a row in such a batch

    def copy(self) -> "ServiceTime":
        """One that knows the same, and learns on its own."""
        twin = ServiceTime(self._sizes[-1], batch_cost_ns=self._batch_cost_ns)
        twin._times, twin._known = self._times, self._known  # they are replaced, never changed
        twin.best_rows, twin.best_ns, twin.row_ns = self.best_rows, self.best_ns, self.row_ns
        return twin

    @property
    def sizes(self) -> Sequence[int]:
        """The sizes whose times are worth measuring before the first request."""
        return self._sizes

    def observe(self, *, rows: int, took_ns: int) -> None:
        """Learn from one batch."""
        took = max(1.0, float(took_ns))
        if not self._known:
            self._start(rows, took)
            return
        surprise = math.log(took / self._predict(rows))
        surprise = max(-_MOST_SURPRISE, min(_MOST_SURPRISE, surprise))
        high = bisect.bisect_left(self._sizes, rows)
        low = high if self._sizes[high] == rows else high - 1
        near, far = math.exp(_STEP * surprise), math.exp(_SHARED_STEP * surprise)
        self._times = [
            time * (near if low <= position <= high else far)
            for position, time in enumerate(self._times)
        ]
        self._find_best()

    def calibrate(self, *, rows: int, took_ns: int) -> None:
        """Take over a time measured before the first request, from the smallest of `sizes` on.

        Until the larger ones follow, they are taken to cost in proportion to their rows.
        """
        if not self._known:
            self._start(rows, float(took_ns))
        position = self._sizes.index(rows)
        took = max(1.0, float(took_ns))
        larger = [took * size / rows for size in self._sizes[position:]]
        self._times = self._times[:position] + larger
        self._find_best()

    def predict_ns(self, rows: int) -> int:
        """The time of a batch of so many rows."""
        return int(self._predict(rows))

    def drain_ns(self, rows: int) -> int:
        """The time of so many rows in batches of `best_rows`, one after the other."""
        whole, rest = divmod(rows, self.best_rows)
        return int(whole * self.best_ns + (self._predict(rest) if rest else 0.0))

    def most_rows_within(self, limit_ns: int) -> int:
        """The largest batch, up to `best_rows`, that takes no longer; at least one row."""
        if self.best_ns <= limit_ns:
            return self.best_rows
        low, high = 1, self.best_rows
        while low < high:
            middle = (low + high + 1) // 2
            if self._predict(middle) <= limit_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def _start(self, rows: int, took: float) -> None:
        """Nothing is known but this: larger batches are taken to pay, so that they are tried."""
        self._known = True
        self._times = [took * (size / rows) ** _UNSEEN_POWER for size in self._sizes]
        self._find_best()

    def _predict(self, rows: int) -> float:
        sizes, times = self._sizes, self._times
        high = bisect.bisect_left(sizes, rows)
        if high == len(sizes):
            return times[-1] * rows / sizes[-1]
        if sizes[high] == rows or high == 0:
            return times[high]
        share = (rows - sizes[high - 1]) / (sizes[high] - sizes[high - 1])
        return times[high - 1] + share * (times[high] - times[high - 1])

    def _find_best(self) -> None:
        """The smallest size that is nearly as fast per row as the fastest; or a shorter batch."""
        rates = [
            size / (time + self._batch_cost_ns)
            for size, time in zip(self._sizes, self._times, strict=True)
        ]
        enough, least = _GOOD_ENOUGH * max(rates), _LEAST_SHARE * max(rates)
        position = next(i for i, rate in enumerate(rates) if rate >= enough)
        while position and self._times[position] > self.limit_ns and rates[position - 1] >= least:
            position -= 1
        self.best_rows, self.best_ns = self._sizes[position], self._times[position]
        self.row_ns = self.best_ns / self.best_rows
