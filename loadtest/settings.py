"""The settings of one load test, checked before anything is sent."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.schedule import ClosedLoop, Load
from loadtest.verdict import MIN_REQUESTS
from ridgeline.errors import InvalidInput

PROTOCOLS = ("grpc", "http")


@dataclass(frozen=True)
class LoadtestSettings:
    """What to measure: one run for each batch size.

    `model_version` is empty for the newest; `data` are files and folders with samples, else random
    ones are sent; `repository` is where to find the model's cost if the server does not tell it;
    `hardware` a file of `ridgeline hardware --json` made on the server's machine, if that is
    another one.
    `client_core` pins the load generator. A trace brings its own rows and duration.
    """

    url: str
    protocol: str
    model: str
    model_version: str = ""
    load: Load = field(default_factory=lambda: ClosedLoop(concurrency=1))
    duration_s: float = 10.0
    warmup_s: float = 2.0
    batch_sizes: tuple[int, ...] = (1,)
    seed: int = 0
    data: tuple[Path, ...] = ()
    repository: Path | None = None
    hardware: Path | None = None
    request_timeout_s: float = 10.0
    min_requests: int = MIN_REQUESTS
    client_core: int | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InvalidInput(f"the protocol must be grpc or http, received {self.protocol!r}")
        for name in ("duration_s", "request_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{name} must be positive, received {value}")
        if not (math.isfinite(self.warmup_s) and self.warmup_s >= 0):
            raise InvalidInput(f"warmup_s must not be negative, received {self.warmup_s}")
        sizes = self.batch_sizes
        if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
            raise InvalidInput(f"batch sizes must be positive and differ, received {list(sizes)}")
        if self.seed < 0 or self.min_requests < 1:
            raise InvalidInput(
                "the seed must not be negative and min_requests must be positive, "
                f"received {self.seed} and {self.min_requests}"
            )
