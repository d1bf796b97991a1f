"""Predicts how long a graph takes on this machine, from networks that were timed here.

    time = a + sum over kinds of operators of b[kind] * roofline estimate of that kind

The estimate (`ridgeline.roofline`) knows the machine's peaks and bandwidths; what is fitted is how
far from them each kind of operator stays. Errors count relatively; a kind that few networks hold is
drawn to the common factor. The interval comes from leaving each network out in turn, so it covers
as often as such predictions were right before.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ridgeline.errors import InvalidInput

COVERAGE = 0.9
_SHRINKAGE = 0.15  # how strongly a factor is drawn to the common one, beside relative errors
_LEAST_MODELS = 4
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One network at one batch size: measured time, and the roofline estimate by kind, in ns."""

    model: str
    batch_size: int
    time_ns: float
    estimate_ns: Mapping[str, float]


@dataclass(frozen=True)
class Fit:
    """`overhead_ns` per call, a factor for each kind; `common` is that of all kinds together."""

    overhead_ns: float
    factors: Mapping[str, float]
    common: float

    def predict_ns(self, estimate_ns: Mapping[str, float]) -> float:
        """The time of a graph with that estimate."""
        parts = (
            self.factors.get(kind, self.common) * time_ns for kind, time_ns in estimate_ns.items()
        )
        return self.overhead_ns + sum(parts)


@dataclass(frozen=True)
class Predictor:
    """A fit to all points, and how well it does on networks that it has not seen.

    `errors` holds (model, batch size, measured, predicted, low, high) in ns, each predicted by a
    fit to the other networks, with an interval from the others alone.
    """

    fit: Fit
    spread: float
    errors: tuple[tuple[str, int, float, float, float, float], ...]

    def predict_ns(self, estimate_ns: Mapping[str, float]) -> tuple[float, float, float]:
        """The time, and the interval that should hold it in nine of ten networks."""
        time_ns = self.fit.predict_ns(estimate_ns)
        return time_ns, time_ns / self.spread, time_ns * self.spread

    @property
    def summary(self) -> dict[str, Any]:
        """Relative errors on networks left out, and how often the interval held the time."""
        relative = [abs(told / time - 1) for _, _, time, told, _, _ in self.errors]
        held = [low <= time <= high for _, _, time, _, low, high in self.errors]
        return {
            "points": len(relative),
            "models": len({row[0] for row in self.errors}),
            "median_error": float(np.median(relative)),
            "largest_error": float(np.max(relative)),
            "interval_promises": COVERAGE,
            "interval_held": float(np.mean(held)),
            "interval_factor": self.spread,
            "overhead_ns": self.fit.overhead_ns,
            "factors": dict(self.fit.factors),
        }


def learn(points: Sequence[Point]) -> Predictor:
    """Fit, and leave each network out in turn. Raises InvalidInput for fewer than four networks."""
    models = list(dict.fromkeys(point.model for point in points))
    if len(models) < _LEAST_MODELS:
        raise InvalidInput(
            f"a prediction needs at least {_LEAST_MODELS} networks, received {len(models)}"
        )
    left_out: dict[str, list[tuple[Point, float]]] = {}
    for model in models:
        found = fit([point for point in points if point.model != model])
        own = [point for point in points if point.model == model]
        left_out[model] = [(point, found.predict_ns(point.estimate_ns)) for point in own]
    logs = {model: _worst(rows) for model, rows in left_out.items()}
    errors = []
    for model, rows in left_out.items():
        spread = _spread([value for other, value in logs.items() if other != model])
        errors += [
            (model, point.batch_size, point.time_ns, told, told / spread, told * spread)
            for point, told in rows
        ]
    return Predictor(fit(points), _spread(list(logs.values())), tuple(errors))


def fit(points: Sequence[Point]) -> Fit:
    """Non-negative least squares of relative errors."""
    kinds = sorted({kind for point in points for kind in point.estimate_ns})
    times = np.array([point.time_ns for point in points])
    table = np.array([[point.estimate_ns.get(kind, 0.0) for kind in kinds] for point in points])
    ones = np.ones_like(times)
    whole, _ = nnls(np.stack([ones / times, table.sum(axis=1) / times], axis=1), ones)
    common = max(float(whole[1]), 1e-9)
    # One more row for each kind draws its factor to the common one.
    drawn = _SHRINKAGE / common * np.eye(len(kinds) + 1)[1:]
    rows = np.concatenate([np.column_stack([ones, table]) / times[:, None], drawn])
    wanted = np.concatenate([ones, np.full(len(kinds), _SHRINKAGE)])
    found, _ = nnls(rows, wanted)
    factors = dict(zip(kinds, found[1:].tolist(), strict=True))
    return Fit(overhead_ns=float(found[0]), factors=factors, common=common)


def _worst(rows: Sequence[tuple[Point, float]]) -> float:
    """How far off a network's predictions are, as a logarithm: the 90th percentile of its sizes."""
    logs = [abs(math.log(told / point.time_ns)) for point, told in rows]
    return float(np.percentile(logs, 100 * COVERAGE))


def _spread(logs: Sequence[float]) -> float:
    """The factor that holds so many networks, counting the one to come (conformal prediction)."""
    place = min(len(logs), math.ceil((len(logs) + 1) * COVERAGE))
    return math.exp(sorted(logs)[place - 1])
