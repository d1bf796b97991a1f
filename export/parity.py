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

from ridgeline.errors import InvalidInput, ParityFailed, Unsupported

_TIE = 4 * float(np.finfo(np.float32).eps)  # relative: what one addition more or less makes of it

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """The largest errors over all golden inputs, batch sizes and outputs.

    The relative error of an output is max|onnx - tensorflow| / max|tensorflow| over one batch, of
    the finite elements: NaN and infinity must be the same in both. `top1_agreement` is the share of
    samples whose largest element stands at the same place.
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
class _Comparison:
    """One output for one batch: the errors, and for how many rows the largest element agrees."""

    output: str
    batch_size: int
    absolute_error: float
    relative_error: float
    agreeing: int
    rows: int


@dataclass(frozen=True)
class Accuracy:
    """How many samples of a labelled set an implementation puts into the right class."""

    correct: int
    samples: int

    def to_table(self) -> dict[str, Any]:
        """The counts and their ratio as JSON."""
        return {"accuracy": self.correct / self.samples, **asdict(self)}


def runner(model: bytes, *, name: str, threads: int = 0) -> Run:
    """A function that runs the serialised graph of the model `name` with ONNX Runtime on the CPU.

    With 0 threads ONNX Runtime takes what there are. Raises Unsupported where it does not load the
    graph; the function raises ParityFailed where the graph fails on inputs that the network takes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the errors of ONNX Runtime share no base
        raise Unsupported(f"ONNX Runtime cannot load the graph of {name!r}: {error}") from error
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = session.run(names, dict(inputs))
        except Exception as error:
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            raise ParityFailed(
                f"ONNX Runtime cannot run {name!r} on inputs of the shapes {shapes}: {error}"
            ) from error
        return dict(zip(names, outputs, strict=True))

    return run


def prove(
    reference: Run,
    exported: Run,
    *,
    golden: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int],
    relative_tolerance: float,
) -> Parity:
    """Compare both implementations on the golden inputs, once per batch size.

    A batch larger than all golden inputs repeats them. Raises ParityFailed, with output, batch size
    and figures, where they differ by more than `relative_tolerance` or disagree on the most
    probable class.
    """
    compared = [
        _compare(array, answer[name], output=name, batch_size=batch_size)
        for batch_size in batch_sizes
        for batch in _batches(_repeated(golden, rows=batch_size), batch_size=batch_size)
        for expected, answer in [(reference(batch), exported(batch))]
        for name, array in expected.items()
    ]
    worst = max(compared, key=lambda found: found.relative_error)
    if worst.relative_error > relative_tolerance:
        raise ParityFailed(
            f"output {worst.output!r} differs at batch size {worst.batch_size}: relative error "
            f"{worst.relative_error:.2e}, allowed {relative_tolerance:.0e}"
        )
    if first := next((found for found in compared if found.agreeing < found.rows), None):
        raise ParityFailed(
            f"the most probable class of output {first.output!r} differs at batch size "
            f"{first.batch_size} for {first.rows - first.agreeing} of {first.rows} samples"
        )
    return Parity(
        max_absolute_error=max(found.absolute_error for found in compared),
        max_relative_error=worst.relative_error,
        top1_agreement=sum(found.agreeing for found in compared)
        / sum(found.rows for found in compared),
        relative_tolerance=relative_tolerance,
        batch_sizes=tuple(batch_sizes),
        samples=len(next(iter(golden.values()))),
    )


def accuracy(
    run: Run,
    *,
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray,
    output: str,
    batch_size: int,
) -> Accuracy:
    """Classify a labelled set by the largest element of an output."""
    predicted = [_top1(run(batch)[output]) for batch in _batches(inputs, batch_size=batch_size)]
    return Accuracy(correct=int((np.concatenate(predicted) == labels).sum()), samples=len(labels))


def answers(
    run: Run, *, inputs: Mapping[str, np.ndarray], batch_size: int
) -> dict[str, np.ndarray]:
    """All outputs for a whole set of samples."""
    found = [run(batch) for batch in _batches(inputs, batch_size=batch_size)]
    return {name: np.concatenate([answer[name] for answer in found]) for name in found[0]}


def _batches(
    inputs: Mapping[str, np.ndarray], *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    samples = {len(array) for array in inputs.values()}
    if len(samples) != 1 or 0 in samples:
        raise InvalidInput(f"inputs must have equally many samples, received {sorted(samples)}")
    for first in range(0, samples.pop(), batch_size):
        yield {name: array[first : first + batch_size] for name, array in inputs.items()}


def _repeated(inputs: Mapping[str, np.ndarray], *, rows: int) -> dict[str, np.ndarray]:
    """The inputs, over and over where they are fewer than `rows`."""
    return {
        name: np.take(array, np.arange(rows), axis=0, mode="wrap")
        if 0 < len(array) < rows
        else array
        for name, array in inputs.items()
    }


def _compare(
    expected: np.ndarray, found: np.ndarray, *, output: str, batch_size: int
) -> _Comparison:
    where = f"output {output!r} at batch size {batch_size}"
    if expected.dtype.kind in "OSU":
        raise Unsupported(f"{where} is text, for which there is no proof of parity")
    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise ParityFailed(
            f"{where} is {found.dtype} {list(found.shape)}, "
            f"expected {expected.dtype} {list(expected.shape)}"
        )
    finite = np.isfinite(expected)
    if not (
        np.array_equal(finite, np.isfinite(found))
        and np.array_equal(expected[~finite], found[~finite], equal_nan=True)
    ):
        raise ParityFailed(f"{where} has other NaN or infinity")
    reference = expected[finite].astype(np.float64)
    absolute = float(np.abs(reference - found[finite].astype(np.float64)).max(initial=0.0))
    return _Comparison(
        output=output,
        batch_size=batch_size,
        absolute_error=absolute,
        relative_error=absolute / (float(np.abs(reference).max(initial=0.0)) or 1.0),
        agreeing=_agreeing(expected, found),
        rows=len(expected),
    )


def _agreeing(expected: np.ndarray, found: np.ndarray) -> int:
    """For how many rows both have their largest element at one place, or at places that tie.

    The same value at several places, as in an image with two like edges, has no order: rounding
    decides which of them comes first.
    """
    rows = expected.reshape(len(expected), -1)
    if not rows.shape[1] or expected.dtype.kind == "b":
        return int((_top1(expected) == _top1(found)).sum())
    values = np.take_along_axis(rows, _top1(found)[:, np.newaxis], axis=1)[:, 0]
    best = np.take_along_axis(rows, _top1(expected)[:, np.newaxis], axis=1)[:, 0]
    # Equal wherever both are infinite; nan stands where `_compare` has seen it in both.
    near = np.isclose(values, best, rtol=_TIE, atol=0, equal_nan=True)
    return int(near.sum())


def _top1(array: np.ndarray) -> np.ndarray:
    """The place of the largest element of each row; 0 where a row has none."""
    rows = array.reshape(len(array), -1)
    return rows.argmax(axis=1) if rows.shape[1] else np.zeros(len(rows), dtype=np.intp)
