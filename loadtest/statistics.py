"""Percentiles with their confidence intervals, from raw times."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import quantile_test

from ridgeline.errors import InvalidInput

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
CONFIDENCE = 0.95
_CURVE_POINTS = 100
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Percentile:
    """A percentile in ms, and the bounds of its 95 % confidence interval.

    A bound is None where the sample is too small to have one.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Latency:
    """Latencies of one run, in ms.

    `percentiles` maps "p50" and so on; `curve` holds about 100 pairs (percentile, ms) for plots,
    evenly spaced in "nines": 90, 99 and 99.9 % lie equally far apart.
    """

    count: int
    mean: float
    least: float
    greatest: float
    p999: float
    percentiles: dict[str, Percentile]
    curve: tuple[tuple[float, float], ...]


def summarise(latencies_ns: npt.NDArray[np.int64]) -> Latency:
    """The summary of at least one latency. Raises InvalidInput for none."""
    if not len(latencies_ns):
        raise InvalidInput("a summary needs at least one latency, received none")
    times_ms = np.sort(latencies_ns) / _NS_PER_MS
    return Latency(
        count=len(times_ms),
        mean=float(times_ms.mean()),
        least=float(times_ms[0]),
        greatest=float(times_ms[-1]),
        p999=float(np.percentile(times_ms, 99.9, method="inverted_cdf")),
        percentiles={f"p{percent:g}": percentile(times_ms, percent) for percent in PERCENTILES},
        curve=_curve(times_ms),
    )


def percentile(values: npt.NDArray[np.float64], percent: float) -> Percentile:
    """The smallest value that `percent` % of `values` do not exceed, and its interval.

    The interval is the exact one from order statistics (binomial; Conover, "Practical
    nonparametric statistics", 3rd edition, 1999), which assumes no distribution. It holds for
    independent values; those of one run depend on each other a little, so take it as the least.
    """
    value = float(np.percentile(values, percent, method="inverted_cdf"))
    test = quantile_test(values, p=percent / 100)
    low, high = test.confidence_interval(CONFIDENCE)
    return Percentile(value=value, low=_finite(low), high=_finite(high))


def _curve(sorted_ms: npt.NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    nines = np.linspace(0, math.log10(len(sorted_ms)), _CURVE_POINTS)
    percents = np.unique(np.round(100 * (1 - 10**-nines), 6))
    values = np.percentile(sorted_ms, percents, method="inverted_cdf")
    return tuple(zip(percents.tolist(), values.tolist(), strict=True))


def _finite(bound: float) -> float | None:
    return float(bound) if math.isfinite(bound) else None
