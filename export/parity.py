"""The proof that the exported graph answers as the trained network does.

TensorFlow runs the SavedModel, ONNX Runtime the graph, on the same golden inputs at several batch
sizes. The proof holds when the largest relative error stays within a tolerance, and when the most
probable class agrees for every sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime

from ridgeline.errors import InvalidInput, ParityFailed

# Two correct fp32 implementations differ by the order of their additions, measured 3e-7 to 2e-6
# over the networks of the course (max|difference| / max|reference|).
RELATIVE_TOLERANCE = 1e-5

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """The largest errors over all golden inputs, batch sizes and outputs.

    The relative error of an output is max|onnx - tensorflow| / max|tensorflow|; `top1_agreement` is
    the share of samples whose largest element stands at the same place.
    """

    max_absolute_error: float
    max_relative_error: float
    top1_agreement: float
    relative_tolerance: float
    batch_sizes: tuple[int, ...]
    samples: int

    def to_table(self) -> dict[str, Any]:
        """The proof as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Accuracy:
    """How many samples of a labelled set an implementation puts into the right class."""

    correct: int
    samples: int

    def to_table(self) -> dict[str, Any]:
        """The counts and their ratio as JSON."""
        return {"accuracy": self.correct / self.samples, **asdict(self)}


def runner(model: bytes) -> Run:
    """A function that runs the serialised graph with ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def prove(
    reference: Run,
    exported: Run,
    *,
    golden: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int],
    relative_tolerance: float = RELATIVE_TOLERANCE,
) -> Parity:
    """Compare both implementations on the golden inputs, once per batch size.

    Raises ParityFailed, with output, batch size and figures, where they differ by more than
    `relative_tolerance` or disagree on the most probable class.
    """
    absolute, relative, agreeing, compared = 0.0, 0.0, 0, 0
    for batch_size in batch_sizes:
        for batch in _batches(golden, batch_size=batch_size):
            expected, found = reference(batch), exported(batch)
            for name, array in expected.items():
                difference = _difference(array, found[name], output=name, batch_size=batch_size)
                scale = float(np.abs(array.astype(np.float64)).max(initial=0.0)) or 1.0
                absolute = max(absolute, difference)
                relative = max(relative, difference / scale)
                if difference / scale > relative_tolerance:
                    raise ParityFailed(
                        f"output {name!r} differs at batch size {batch_size}: relative error "
                        f"{difference / scale:.2e}, allowed {relative_tolerance:.0e}"
                    )
                agreeing += int((_top1(array) == _top1(found[name])).sum())
                compared += len(array)
    if agreeing != compared:
        raise ParityFailed(
            f"the most probable class differs for {compared - agreeing} of {compared} samples"
        )
    return Parity(
        max_absolute_error=absolute,
        max_relative_error=relative,
        top1_agreement=agreeing / compared,
        relative_tolerance=relative_tolerance,
        batch_sizes=tuple(batch_sizes),
        samples=len(next(iter(golden.values()))),
    )


def accuracy(
    run: Run, *, inputs: Mapping[str, np.ndarray], labels: np.ndarray, batch_size: int
) -> Accuracy:
    """Classify a labelled set by the largest element of the first output."""
    predicted = [
        _top1(next(iter(run(batch).values()))) for batch in _batches(inputs, batch_size=batch_size)
    ]
    return Accuracy(correct=int((np.concatenate(predicted) == labels).sum()), samples=len(labels))


def _batches(
    inputs: Mapping[str, np.ndarray], *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    samples = {len(array) for array in inputs.values()}
    if len(samples) != 1 or 0 in samples:
        raise InvalidInput(f"inputs must have equally many samples, received {sorted(samples)}")
    for first in range(0, samples.pop(), batch_size):
        yield {name: array[first : first + batch_size] for name, array in inputs.items()}


def _difference(expected: np.ndarray, found: np.ndarray, *, output: str, batch_size: int) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise ParityFailed(
            f"output {output!r} at batch size {batch_size} is {found.dtype} {list(found.shape)}, "
            f"expected {expected.dtype} {list(expected.shape)}"
        )
    if not (np.isfinite(expected) == np.isfinite(found)).all():
        raise ParityFailed(
            f"output {output!r} at batch size {batch_size} has other NaN or infinity"
        )
    difference = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    return float(np.nan_to_num(difference).max(initial=0.0))


def _top1(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1).argmax(axis=1)  # type: ignore[no-any-return]
