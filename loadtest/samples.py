"""What is sent: seeded random tensors, or samples of a file whose keys are input names."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.served import ServedModel
from ridgeline.datatypes import datatype, datatype_of_numpy
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.model import FREE

LABEL = "label"
_LINE_SUFFIXES = (".jsonl", ".ndjson")

Array = npt.NDArray[Any]
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Samples:
    """`count` samples: one array per input with the samples along its first axis, and classes.

    `labels` is None where the file holds none, else `count` class numbers (int64).
    """

    arrays: Batch
    labels: npt.NDArray[np.int64] | None
    count: int

    def rows(self, start: int, *, size: int) -> Batch:
        """`size` samples from `start` on, from the first again after the last."""
        chosen = np.arange(start, start + size) % self.count
        return {name: array[chosen] for name, array in self.arrays.items()}

    def labels_of(self, start: int, *, size: int) -> npt.NDArray[np.int64] | None:
        """The right classes of those rows; None where there are none."""
        chosen = np.arange(start, start + size) % self.count
        return None if self.labels is None else self.labels[chosen]


def read_samples(path: Path, *, model: ServedModel) -> Samples:
    """The samples in `path`, checked against the inputs of `model`.

    Raises NotFound, CorruptData, or InvalidInput naming what differs.
    """
    lines = path.suffix in _LINE_SUFFIXES
    arrays = _read_lines(path, model=model) if lines else _read_arrays(path)
    labels = arrays.pop(LABEL, None)
    expected = [tensor.name for tensor in model.inputs]
    if sorted(arrays) != sorted(expected):
        raise InvalidInput(
            f"{path} holds {sorted(arrays)} (and {LABEL!r} or not); "
            f"the inputs of model {model.name!r} are {sorted(expected)}"
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if labels is not None:
        counts[LABEL] = len(labels) if labels.ndim else 0
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InvalidInput(f"{path} must hold as many samples of each, at least 1; found {counts}")
    for tensor in model.inputs:
        _check(arrays[tensor.name], tensor=tensor, path=path)
    return Samples(
        arrays={name: arrays[name] for name in expected},
        labels=None if labels is None else _classes(labels, path=path),
        count=counts[expected[0]],
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


def _read_lines(path: Path, *, model: ServedModel) -> dict[str, Array]:
    """JSON lines, a sample each: {"x": [[0.5, ...], ...], "label": 3}."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except OSError as error:
        raise NotFound(f"there is no file {path}") from error
    except ValueError as error:
        raise CorruptData(f"{path} does not hold JSON lines: {error}") from error
    kinds = {tensor.name: datatype(tensor.datatype).numpy for tensor in model.inputs}
    try:
        names = list(rows[0])
        return {
            name: np.array([row[name] for row in rows], dtype=kinds.get(name, np.dtype(np.int64)))
            for name in names
        }
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CorruptData(
            f"{path} must hold a JSON object a line, each with the same names: {error!r}"
        ) from error


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:  # np.load itself leaves a damaged file open
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise CorruptData(f"{path} is a single array (.npy); expected an .npz archive")
            return dict(archive)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise CorruptData(f"{path} is not an .npz archive of arrays: {error}") from error


def _check(array: Array, *, tensor: Any, path: Path) -> None:
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
