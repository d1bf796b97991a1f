"""Whether one version of a server is slower than another, from runs that took turns.

The two are measured in short blocks, one after the other, in an order drawn for each pair: whatever
slows the machine for longer than a block slows both. No stored millisecond is involved.

A server that starts twice is not twice as fast to the percent: where its memory lies, and what it
learned while it started, stays with it. Blocks on one pair of servers share that, so they are one
round, and what is judged is the median of the rounds' medians. Its interval is bootstrapped in two
steps, rounds first and then the pairs within each (Davison and Hinkley, 1997, section 3.8;
percentile method).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ridgeline.errors import InvalidInput

HELD, MISSED, UNSURE = "held", "missed", "could not tell"
CONFIDENCE = 0.9  # 5 % at either end: a limit is one-sided
_RESAMPLES = 2000
_LEAST_ROUNDS = 4


Round = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's figure the candidate's is, with its confidence interval."""

    value: float
    low: float
    high: float
    rounds: int


def ratio(rounds: Sequence[Round], *, seed: int = 0) -> Ratio:
    """The median over rounds of (baseline's, candidate's) figures of paired blocks.

    All rounds have the same number of pairs. Raises InvalidInput otherwise, or for too few rounds.
    """
    lengths = {len(figures) for each in rounds for figures in each}
    if len(rounds) < _LEAST_ROUNDS or len(lengths) != 1:
        raise InvalidInput(
            f"a comparison needs at least {_LEAST_ROUNDS} rounds with the same number of pairs, "
            f"received {len(rounds)} rounds with {sorted(lengths)} figures"
        )
    logs = np.array([np.log(np.divide(candidate, baseline)) for baseline, candidate in rounds])
    count, pairs = logs.shape
    random = np.random.default_rng(seed)
    drawn_rounds = random.integers(count, size=(_RESAMPLES, count, 1))
    drawn_pairs = random.integers(pairs, size=(_RESAMPLES, count, pairs))
    medians = np.median(np.median(logs[drawn_rounds, drawn_pairs], axis=2), axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(medians, (tail, 100 - tail))
    middle = np.median(np.median(logs, axis=1))
    return Ratio(value=_exp(middle), low=_exp(low), high=_exp(high), rounds=count)


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
