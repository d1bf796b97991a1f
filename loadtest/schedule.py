"""When requests are meant to be sent: open loop (Poisson arrivals) or closed loop (slots)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.errors import InvalidInput

MAX_ARRIVALS = 20_000_000  # a longer schedule is a slip of the pen, and would fill the memory
_NS_PER_S = 1e9


@dataclass(frozen=True)
class OpenLoop:
    """Requests arrive when they arrive, however slow the server is: as many users would send."""

    rate_per_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
            raise InvalidInput(
                f"the rate must be a positive number of requests per second, "
                f"received {self.rate_per_s}"
            )

    def describe(self) -> dict[str, Any]:
        """The load as it stands in a result."""
        return {"kind": "open", "arrivals": "Poisson", "rate_per_s": self.rate_per_s}


@dataclass(frozen=True)
class ClosedLoop:
    """`concurrency` slots, each sending its next request when its last one was answered."""

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InvalidInput(f"the concurrency must be at least 1, received {self.concurrency}")

    def describe(self) -> dict[str, Any]:
        """The load as it stands in a result."""
        return {"kind": "closed", "concurrency": self.concurrency}


Load = OpenLoop | ClosedLoop


def poisson_arrivals_ns(load: OpenLoop, *, duration_s: float, seed: int) -> npt.NDArray[np.int64]:
    """Arrival times in [0, duration), in ns from the start, rising: a Poisson process, seeded.

    The gaps are exponential with mean 1 / rate. Raises InvalidInput for more than MAX_ARRIVALS.
    """
    expected = load.rate_per_s * duration_s
    if not 0 <= expected <= MAX_ARRIVALS:
        raise InvalidInput(
            f"{load.rate_per_s} requests per second for {duration_s} s are {expected:.3g} "
            f"requests; at most {MAX_ARRIVALS} are possible"
        )
    generator = np.random.default_rng(seed)
    chunk = int(expected + 4 * math.sqrt(expected)) + 16  # one chunk nearly always suffices
    times_s = np.zeros(1)
    while times_s[-1] < duration_s:
        gaps_s = generator.exponential(1 / load.rate_per_s, size=chunk)
        times_s = np.concatenate([times_s, times_s[-1] + np.cumsum(gaps_s)])
    within = times_s[1:][times_s[1:] < duration_s]
    return np.floor(within * _NS_PER_S).astype(np.int64)
