"""Whether one version of a server is slower than another, from runs that took turns.

The two are measured in short blocks, one after the other, in an order drawn for each pair: whatever
slows the machine for longer than a block slows both. Each pair gives a ratio, and the bootstrap of
their median gives an interval (Efron, 1979; percentile method). No stored millisecond is involved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ridgeline.errors import InvalidInput

HELD, MISSED, UNSURE = "held", "missed", "could not tell"
CONFIDENCE = 0.99
_RESAMPLES = 4000
_LEAST_PAIRS = 8


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's figure the candidate's is, with its confidence interval."""

    value: float
    low: float
    high: float
    pairs: int


def ratio(baseline: Sequence[float], candidate: Sequence[float], *, seed: int = 0) -> Ratio:
    """The median ratio of pairs, and its interval. Raises InvalidInput for too few pairs."""
    if len(baseline) != len(candidate) or len(baseline) < _LEAST_PAIRS:
        raise InvalidInput(
            f"a comparison needs at least {_LEAST_PAIRS} pairs, "
            f"received {len(baseline)} and {len(candidate)} figures"
        )
    logs = np.log(np.asarray(candidate) / np.asarray(baseline))
    drawn = np.random.default_rng(seed).integers(len(logs), size=(_RESAMPLES, len(logs)))
    medians = np.median(logs[drawn], axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(medians, (tail, 100 - tail))
    return Ratio(value=_exp(np.median(logs)), low=_exp(low), high=_exp(high), pairs=len(logs))


def judge(found: Ratio, *, at_most: float | None = None, at_least: float | None = None) -> str:
    """HELD where the whole interval is within the limit, MISSED where all of it is beyond."""
    if at_most is not None:
        return _judged(inside=found.high <= at_most, outside=found.low > at_most)
    if at_least is not None:
        return _judged(inside=found.low >= at_least, outside=found.high < at_least)
    raise InvalidInput("a ratio is judged against at_most or at_least, received neither")


def _judged(*, inside: bool, outside: bool) -> str:
    if inside:
        return HELD
    return MISSED if outside else UNSURE


def _exp(value: float | npt.NDArray[np.float64] | np.floating) -> float:
    return float(np.exp(value))
