"""Whether a run measured one steady state: where its warm-up ended, drift, noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

WINDOWS = 20
_LEAST_PER_WINDOW = 20
_WARM_FACTOR = 1.1  # what is cut off must have been slower by this
_DRIFT_P, _DRIFT_SHARE = 0.001, 0.15
_NOISE = 1.0  # range of the middle 80 % of the windows, as a share of their median


@dataclass(frozen=True)
class Steadiness:
    """The medians of consecutive windows (ns), as many requests each, and what they tell.

    `warm_from` is the first request after the warm-up; `drift` the change over the run as a share
    of the median, 0 where it may be chance; `noise` the range of the middle 80 % of the windows.
    """

    medians_ns: tuple[float, ...]
    warm_from: int
    drift: float
    noise: float

    def reasons(self) -> list[str]:
        """Why the run should not be relied on."""
        found = []
        if abs(self.drift) > _DRIFT_SHARE:
            word = "rose" if self.drift > 0 else "fell"
            found.append(f"drift: the latency {word} by {abs(self.drift):.0%} during the run")
        if self.noise > _NOISE:
            found.append(
                f"noise: medians of {len(self.medians_ns)} parts of the run differ by "
                f"{self.noise:.0%} of their median; a quieter machine or longer run would settle it"
            )
        return found


def steadiness(latencies_ns: npt.NDArray[np.int64]) -> Steadiness | None:
    """Judge latencies in the order of their intended times; None for fewer than 400.

    The warm-up ends where the marginal standard error of the rest is least (MSER; White, "An
    effective truncation heuristic for bias reduction in simulation output", 1997), within the first
    half, and only if what is cut off was slower. Drift is told by Kendall's rank correlation.
    """
    size = len(latencies_ns) // WINDOWS
    if size < _LEAST_PER_WINDOW:
        return None
    medians = np.median(latencies_ns[: size * WINDOWS].reshape(WINDOWS, size), axis=1)
    cut = _truncation(medians)
    rest = medians[cut:]
    middle = float(np.median(rest))
    low, high = np.percentile(rest, (10, 90))
    return Steadiness(
        medians_ns=tuple(medians.tolist()),
        warm_from=cut * size,
        drift=_drift(rest) / middle if middle else 0.0,
        noise=float(high - low) / middle if middle else 0.0,
    )


def _truncation(medians: npt.NDArray[np.float64]) -> int:
    errors = [medians[cut:].var() / (len(medians) - cut) for cut in range(len(medians) // 2)]
    cut = int(np.argmin(errors))
    slower = cut and np.median(medians[:cut]) > _WARM_FACTOR * np.median(medians[cut:])
    return cut if slower else 0


def _drift(medians: npt.NDArray[np.float64]) -> float:
    """The change over the run by the slope of Theil and Sen; 0 where it may be chance."""
    places = np.arange(len(medians))
    if np.ptp(medians) == 0 or kendalltau(places, medians).pvalue > _DRIFT_P:
        return 0.0
    one, other = np.triu_indices(len(medians), 1)
    slopes = (medians[other] - medians[one]) / (other - one)
    return float(np.median(slopes)) * (len(medians) - 1)
