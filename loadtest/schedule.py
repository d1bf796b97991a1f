"""When requests are meant to be sent: by a schedule (open loop), or when slots are free (closed).

The scenarios of MLPerf Inference (Reddi et al., 2020) are loads: single stream is a closed loop of
one slot; multi stream the same with several samples a request; server is the open loop; offline a
closed loop with many slots. Ramps, bursts and recorded traces are open loops, too.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.errors import CorruptData, InvalidInput, NotFound

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


@dataclass(frozen=True)
class Ramp:
    """Poisson arrivals whose rate rises (or falls) evenly over the whole run."""

    from_per_s: float
    to_per_s: float

    def __post_init__(self) -> None:
        for rate in (self.from_per_s, self.to_per_s):
            OpenLoop(rate)

    def describe(self) -> dict[str, Any]:
        """The load as it stands in a result."""
        return {
            "kind": "ramp",
            "arrivals": "Poisson",
            "from_per_s": self.from_per_s,
            "to_per_s": self.to_per_s,
        }


@dataclass(frozen=True)
class Bursts:
    """Poisson arrivals at `rate_per_s`, and at `burst_per_s` for `burst_s` of every `every_s`."""

    rate_per_s: float
    burst_per_s: float
    every_s: float = 2.0
    burst_s: float = 0.2

    def __post_init__(self) -> None:
        for rate in (self.rate_per_s, self.burst_per_s):
            OpenLoop(rate)
        if not 0 < self.burst_s < self.every_s < math.inf:
            raise InvalidInput(
                f"a burst must be shorter than the time from one to the next, "
                f"received {self.burst_s} s every {self.every_s} s"
            )

    def describe(self) -> dict[str, Any]:
        """The load as it stands in a result."""
        return {
            "kind": "bursts",
            "arrivals": "Poisson",
            "rate_per_s": self.rate_per_s,
            "burst_per_s": self.burst_per_s,
            "every_s": self.every_s,
            "burst_s": self.burst_s,
        }


@dataclass(frozen=True)
class Replay:
    """Requests as they were recorded: when each came, in ns from the first, and its rows."""

    path: str
    arrivals_ns: tuple[int, ...]
    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.arrivals_ns or len(self.arrivals_ns) != len(self.rows):
            raise InvalidInput("a trace must hold at least one request")
        if min(self.rows) < 1 or min(self.arrivals_ns) < 0:
            raise InvalidInput("rows of a trace must be positive, and its times not negative")

    @property
    def duration_s(self) -> float:
        """Until the last request; a moment more, so that it is within."""
        return self.arrivals_ns[-1] / _NS_PER_S + 0.001

    def describe(self) -> dict[str, Any]:
        """The load as it stands in a result."""
        rate = len(self.rows) / self.duration_s
        return {"kind": "replay", "trace": self.path, "rate_per_s": rate}


Timetable = OpenLoop | Ramp | Bursts | Replay
Load = Timetable | ClosedLoop


def read_trace(path: Path) -> Replay:
    """A recorded trace: JSON lines of {"time_s": 0.25, "rows": 4}, in any order.

    Instead of rows (default 1), a line may hold "shapes": {input: [4, 224, 224, 3]}, of which the
    first axis counts. Raises NotFound, or CorruptData naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorruptData(f"{path} is no text: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            found.append((round(float(entry["time_s"]) * _NS_PER_S), _rows(entry)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CorruptData(
                f'line {number} of {path} must be like {{"time_s": 0.25, "rows": 4}}: {error!r}'
            ) from error
    found.sort()
    if not found:
        raise CorruptData(f"{path} holds no request")
    first_ns = found[0][0]
    arrivals_ns = tuple(time_ns - first_ns for time_ns, _ in found)
    return Replay(path=str(path), arrivals_ns=arrivals_ns, rows=tuple(rows for _, rows in found))


def _rows(entry: dict[str, Any]) -> int:
    shapes = entry.get("shapes")
    return int(next(iter(shapes.values()))[0] if shapes else entry.get("rows", 1))


def arrivals_ns(load: Timetable, *, duration_s: float, seed: int) -> npt.NDArray[np.int64]:
    """When requests are due, in ns from the start, rising. Raises as `poisson_arrivals_ns`."""
    if isinstance(load, OpenLoop):
        return poisson_arrivals_ns(load, duration_s=duration_s, seed=seed)
    if isinstance(load, Replay):
        return np.array(load.arrivals_ns, dtype=np.int64)
    if isinstance(load, Ramp):
        highest = max(load.from_per_s, load.to_per_s)
        times_ns = poisson_arrivals_ns(OpenLoop(highest), duration_s=duration_s, seed=seed)
        share = times_ns / _NS_PER_S / duration_s
        rates = load.from_per_s + (load.to_per_s - load.from_per_s) * share
    else:
        highest = max(load.rate_per_s, load.burst_per_s)
        times_ns = poisson_arrivals_ns(OpenLoop(highest), duration_s=duration_s, seed=seed)
        bursting = (times_ns / _NS_PER_S) % load.every_s < load.burst_s
        rates = np.where(bursting, load.burst_per_s, load.rate_per_s)
    # Thinning (Lewis and Shedler, 1979): of the highest rate, each arrival stays by its share.
    kept = np.random.default_rng([seed, 1]).random(len(times_ns)) < rates / highest
    return times_ns[kept]


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


def scenario_of(load: Load, *, rows: int) -> str:
    """The name of the scenario, after MLPerf where it has one for it."""
    if isinstance(load, ClosedLoop):
        if load.concurrency > 1:
            return "offline"
        return "single-stream" if rows == 1 else "multi-stream"
    names = {OpenLoop: "server", Ramp: "ramp", Bursts: "bursts", Replay: "replay"}
    return names[type(load)]
