"""How much faster one graph is than another on this machine, measured in turns."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from export.parity import Run

BATCH_SIZES = (1, 8)
_FEWEST_TURNS, _MOST_TURNS = 31, 301
_ENOUGH_NS = 1_500_000_000  # of each batch size; large networks take their fewest turns
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """The full graph's time over the variant's: above 1 the variant is faster.

    The median over turns, with its 95 % confidence interval; times are medians, milliseconds.
    """

    gain: float
    low: float
    high: float
    full_ms: float
    variant_ms: float
    turns: int

    @property
    def verdict(self) -> str:
        """Whether that is a gain, in words."""
        if self.low > 1:
            return "it gains"
        return "it does not gain" if self.high < 1 else "no difference was found"

    def to_table(self) -> dict[str, Any]:
        """The figures and the verdict as JSON."""
        return {**asdict(self), "verdict": self.verdict}


def measure(full: Run, variant: Run, *, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`batch_<rows>` -> a Gain as JSON, for one sample and for a few.

    In turns, because a machine's speed changes while it is measured; which of both comes first
    changes, too, since a run leaves the caches to the next one.
    """
    return {
        f"batch_{rows}": _gain(
            full, variant, batch={name: array[:rows] for name, array in inputs.items()}
        ).to_table()
        for rows in BATCH_SIZES
    }


def _gain(full: Run, variant: Run, *, batch: Mapping[str, np.ndarray]) -> Gain:
    runs = (full, variant)
    for run in runs:
        run(batch)  # the first run plans its memory
    times: list[tuple[int, int]] = []
    begin_ns = time.perf_counter_ns()
    while len(times) < _FEWEST_TURNS or (
        len(times) < _MOST_TURNS and time.perf_counter_ns() - begin_ns < _ENOUGH_NS
    ):
        order = (0, 1) if len(times) % 2 else (1, 0)
        took = {which: _time_ns(runs[which], batch) for which in order}
        times.append((took[0], took[1]))
    return gain_of(np.array(times, float))


def gain_of(times_ns: np.ndarray, /) -> Gain:
    """The gain of turns, nanoseconds [turns, 2]: of the full graph, of the variant.

    The interval holds for any distribution: ranks of the turns' ratios (Conover, Practical
    Nonparametric Statistics, on quantiles).
    """
    ratios = np.sort(times_ns[:, 0] / times_ns[:, 1])
    rank = int(binom.ppf((1 - _CONFIDENCE) / 2, len(ratios), 0.5))
    low = max(rank - 1, 0)
    full, variant = np.median(times_ns, axis=0) / 1e6
    return Gain(
        gain=float(np.median(ratios)),
        low=float(ratios[low]),
        high=float(ratios[len(ratios) - 1 - low]),
        full_ms=float(full),
        variant_ms=float(variant),
        turns=len(ratios),
    )


def _time_ns(run: Run, batch: Mapping[str, np.ndarray]) -> int:
    begin_ns = time.perf_counter_ns()
    run(batch)
    return time.perf_counter_ns() - begin_ns
