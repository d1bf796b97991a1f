"""What `python -m loadtest.wire.generator` is told, as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.schedule import OpenLoop, poisson_arrivals_ns
from ridgeline.errors import InvalidInput

PROTOCOLS = ("grpc", "http")
_NS_PER_MS, _NS_PER_S = 1_000_000, 1_000_000_000
_LONGEST_S = 600.0


@dataclass(frozen=True)
class DeadlineClass:
    """Requests of one kind: a message (the file holds its bytes), a deadline, a share of all.

    A `deadline_ms` of 0 stands for none. `headers` go along over HTTP.
    """

    message_path: str
    deadline_ms: float = 0.0
    weight: float = 1.0
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (0 <= self.deadline_ms < math.inf and 0 < self.weight < math.inf):
            raise InvalidInput(
                "deadline_ms must not be negative and weight must be positive, "
                f"received {self.deadline_ms} and {self.weight}"
            )

    @property
    def deadline_ns(self) -> int:
        """0 where there is none."""
        return int(self.deadline_ms * _NS_PER_MS)

    def message(self) -> bytes:
        """The bytes that the file holds."""
        return Path(self.message_path).read_bytes()


@dataclass(frozen=True)
class Phase:
    """Poisson arrivals at one rate for some time."""

    rate_per_s: float
    duration_s: float


@dataclass(frozen=True)
class Spec:
    """One run. Closed loop where `in_flight` is given, for `duration_s`; else open, in `phases`, or
    as an .npz file at `arrivals_path` tells (`intended_ns`, rising, and `kinds`).

    Closed loops send the classes in turn where `in_turn` is set, else drawn by their weights. An
    .npz file at `raw_path` takes every request's times; with `keep_answers` also what was answered.
    `path` is that of the RPC or of the resource. `core` pins the client. At the end, the answers
    still due are awaited for `drain_s`.
    """

    protocol: str
    port: int
    path: str
    classes: tuple[DeadlineClass, ...]
    host: str = "127.0.0.1"
    in_flight: int = 0
    duration_s: float = 0.0
    phases: tuple[Phase, ...] = ()
    arrivals_path: str | None = None
    in_turn: bool = False
    raw_path: str | None = None
    keep_answers: bool = False
    connections: int = 1
    seed: int = 0
    core: int | None = None
    drain_s: float = 2.0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InvalidInput(f"protocol must be one of {PROTOCOLS}, received {self.protocol!r}")
        if not self.classes:
            raise InvalidInput("classes must name at least one class of requests")
        if sum(map(bool, (self.in_flight, self.phases, self.arrivals_path))) != 1:
            raise InvalidInput(
                "either in_flight (closed loop) must be given, or phases or arrivals_path (open)"
            )
        if self.in_flight < 0 or self.connections < 1:
            raise InvalidInput(
                "in_flight and connections must be positive, "
                f"received {self.in_flight} and {self.connections}"
            )
        if not 0 < self.load_s <= _LONGEST_S:
            raise InvalidInput(f"a run lasts 0 to {_LONGEST_S:g} s, received {self.load_s}")

    @property
    def load_s(self) -> float:
        """How long requests are due."""
        return sum(phase.duration_s for phase in self.phases) if self.phases else self.duration_s

    @property
    def last_phase_begins_s(self) -> float | None:
        """When the load changed for the last time; None where it never did."""
        return self.load_s - self.phases[-1].duration_s if len(self.phases) > 1 else None

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """Read it. Raises InvalidInput, also for a key that is not known."""
        try:
            values: dict[str, Any] = json.loads(text)
            values["classes"] = tuple(DeadlineClass(**each) for each in values.get("classes", ()))
            values["phases"] = tuple(Phase(*each) for each in values.get("phases", ()))
            return cls(**values)
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InvalidInput(f"the specification of the run is wrong: {error}") from error

    def arrivals_ns(self) -> npt.NDArray[np.int64]:
        """When the requests of the open loop are due."""
        if self.arrivals_path:
            with np.load(self.arrivals_path) as arrays:
                return np.asarray(arrays["intended_ns"], dtype=np.int64)
        begin_s, pieces = 0.0, [np.zeros(0, dtype=np.int64)]
        for place, phase in enumerate(self.phases):
            arrivals_ns = poisson_arrivals_ns(
                OpenLoop(phase.rate_per_s), duration_s=phase.duration_s, seed=self.seed + place
            )
            pieces.append(arrivals_ns + int(begin_s * _NS_PER_S))
            begin_s += phase.duration_s
        return np.concatenate(pieces)

    def kinds(self, count: int) -> npt.NDArray[np.int64]:
        """The classes of so many requests: as told, or drawn by their weights."""
        if self.arrivals_path:
            with np.load(self.arrivals_path) as arrays:
                return np.asarray(arrays["kinds"], dtype=np.int64)
        if self.in_turn:
            return np.arange(count) % len(self.classes)
        weights = np.array([each.weight for each in self.classes])
        shares = weights / weights.sum()
        return np.random.default_rng([self.seed, 1]).choice(len(shares), size=count, p=shares)
