"""What an export needs to be told. Light: read before TensorFlow is loaded."""

from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import WrongUsage


@dataclass(frozen=True)
class ExportSettings:
    """What to publish, under which name (None: the artifact's), for batches of how many rows.

    `variant` "int8" or "fp16" publishes the graph at that precision, as <name>_<variant>.
    `stateful` publishes the network's form for one element of a sequence at a time, as <name>_step.

    `relative_tolerance` is the largest relative error with which the proof still holds. Two correct
    fp32 implementations differ by the order of their additions, measured 3e-7 to 2e-6 over the
    networks of the course (max|difference| / max|reference|).
    """

    source: Path
    repository: Path
    name: str | None = None
    max_batch_size: int = 64
    relative_tolerance: float = 1e-5
    variant: str | None = None
    stateful: bool = False

    def __post_init__(self) -> None:
        if self.max_batch_size < 1:
            raise WrongUsage(f"--max-batch-size must be positive, received {self.max_batch_size}")
        if not 0 < self.relative_tolerance < 1:
            raise WrongUsage(
                "--relative-tolerance must be between 0 and 1, "
                f"received {self.relative_tolerance:g}"
            )
        if self.stateful and self.variant:
            raise WrongUsage("--stateful and --variant cannot be given together")
