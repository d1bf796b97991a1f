"""What is sent: seeded random tensors, or samples of files, and what is right where they tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtest.sample_files import LABEL, Array, files_in, read_file
from loadtest.served import ServedModel
from ridgeline.datatypes import datatype, datatype_of_numpy
from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, TensorSpec

Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Samples:
    """`count` samples: one array per input with the samples along its first axis, and classes.

    `labels` is None where the files hold none, else `count` class numbers (int64). `expected` holds
    the right outputs that the files tell.
    """

    arrays: Batch
    labels: npt.NDArray[np.int64] | None
    count: int
    expected: Batch = field(default_factory=dict)

    def rows(self, start: int, *, size: int) -> Batch:
        """`size` samples from `start` on, from the first again after the last."""
        chosen = self._chosen(start, size=size)
        return {name: array[chosen] for name, array in self.arrays.items()}

    def expected_of(self, start: int, *, size: int) -> Batch:
        """What is right for those rows, of the outputs that are known."""
        chosen = self._chosen(start, size=size)
        return {name: array[chosen] for name, array in self.expected.items()}

    def labels_of(self, start: int, *, size: int) -> npt.NDArray[np.int64] | None:
        """The right classes of those rows; None where there are none."""
        return None if self.labels is None else self.labels[self._chosen(start, size=size)]

    def _chosen(self, start: int, *, size: int) -> npt.NDArray[np.int64]:
        return np.arange(start, start + size) % self.count


def read_samples(paths: Sequence[Path], *, model: ServedModel) -> Samples:
    """The samples in files and folders (see `sample_files`), checked against the model.

    Raises NotFound, CorruptData, or InvalidInput naming what differs.
    """
    files = files_in(paths)
    parts = [_checked(path, model=model) for path in files]
    for path, part in zip(files, parts, strict=True):
        if set(part) != set(parts[0]):
            raise InvalidInput(
                f"{path} holds {sorted(part)}, but {files[0]} {sorted(parts[0])}: "
                "all files must hold the same"
            )
    arrays = {name: _joined(name, parts=parts, files=files) for name in parts[0]}
    labels = arrays.pop(LABEL, None)
    inputs = [tensor.name for tensor in model.inputs]
    return Samples(
        arrays={name: arrays[name] for name in inputs},
        labels=labels,
        count=len(arrays[inputs[0]]),
        expected={name: array for name, array in arrays.items() if name not in inputs},
    )


def _checked(path: Path, *, model: ServedModel) -> dict[str, Array]:
    """The arrays of one file, all of one length and as the model has them."""
    arrays = read_file(path, model=model)
    inputs = {tensor.name: tensor for tensor in model.inputs}
    known = {tensor.name: tensor for tensor in model.outputs} | inputs
    if not set(inputs) <= set(arrays) <= {*known, LABEL}:
        raise InvalidInput(
            f"{path} holds {sorted(arrays)}; the inputs of model {model.name!r} are "
            f"{sorted(inputs)}, and beside them may stand {LABEL!r} and its outputs "
            f"{sorted(set(known) - set(inputs))}"
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InvalidInput(f"{path} must hold as many samples of each, at least 1; found {counts}")
    for name, array in arrays.items():
        if name == LABEL:
            arrays[name] = _classes(array, path=path)
        else:
            _check(array, tensor=known[name], path=path)
    return arrays


def _joined(name: str, *, parts: Sequence[Batch], files: Sequence[Path]) -> Array:
    for path, part in zip(files, parts, strict=True):
        found, first = part[name].shape[1:], parts[0][name].shape[1:]
        if found != first:
            raise InvalidInput(
                f"samples that are sent together have one shape, but {name!r} is {list(first)} in "
                f"{files[0]} and {list(found)} in {path}"
            )
    return np.concatenate([part[name] for part in parts])


def size_bytes(batch: Batch) -> int:
    """How many bytes the tensors of a batch hold, about."""
    return sum(
        sum(map(len, array.flat)) if array.dtype.kind == "O" else array.nbytes
        for array in batch.values()
    )


def random_batch(model: ServedModel, *, batch_size: int, generator: np.random.Generator) -> Batch:
    """A batch of the right datatypes and shapes.

    Floating-point values lie in [0, 1), whole numbers are 0 or 1, which are valid as indices of
    any table too, and texts are eight digits.
    """
    batch = {}
    for tensor in model.inputs:
        shape = model.input_shape(tensor, batch_size=batch_size)
        kind = datatype(tensor.datatype)
        if kind.name == "BYTES":
            digits = generator.integers(10**7, 10**8, size=shape)
            array = digits.astype(np.bytes_).astype(np.object_)
        elif kind.numpy.kind in "iub":
            array = generator.integers(2, size=shape).astype(kind.numpy)
        else:
            array = generator.random(shape).astype(kind.numpy)
        batch[tensor.name] = array
    return batch


def _check(array: Array, *, tensor: TensorSpec, path: Path) -> None:
    found = datatype_of_numpy(array.dtype).name
    if found != tensor.datatype:
        raise InvalidInput(
            f"{tensor.name!r} in {path} is {found} ({array.dtype}); expected {tensor.datatype}"
        )
    expected = tensor.shape[1:]
    fits = len(array.shape[1:]) == len(expected) and all(
        size in (FREE, found_size)
        for size, found_size in zip(expected, array.shape[1:], strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"each sample of {tensor.name!r} in {path} has the shape {list(array.shape[1:])}; "
            f"expected {list(expected)}"
        )


def _classes(labels: Array, *, path: Path) -> npt.NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InvalidInput(
            f"{LABEL!r} in {path} must be one whole number per sample, "
            f"found {labels.dtype} {list(labels.shape)}"
        )
    return labels.astype(np.int64)
