"""The classification extension: of an output, its largest values, each with its index and label."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput


def classified(
    array: np.ndarray, *, count: int, labels: Sequence[str], batches: bool, name: str
) -> np.ndarray:
    """A BYTES array of the `count` largest values (all, where there are fewer), largest first.

    Each is "value:index", or "value:index:label" where it has a label; equal values stand in the
    order of their indices, NaN last. Where the model `batches`, the first axis is kept and each of
    its rows is classified for itself; all other axes count as one. Raises InvalidInput for
    datatypes without an order of numbers; as in Triton, that includes FP16, BF16 and BOOL.
    """
    kind = datatype_of_numpy(array.dtype).name
    if array.dtype.kind not in "iuf" or kind == "FP16":
        raise InvalidInput(
            f"class result not available for output {name!r} due to unsupported type {kind!r}"
        )
    batched = batches and array.ndim > 0
    rows = array.reshape(array.shape[0], math.prod(array.shape[1:])) if batched else [array.ravel()]
    kept = min(count, math.prod(array.shape[1:]) if batched else array.size)
    texts = [text for row in rows for text in _texts(row, count=kept, labels=labels)]
    answer = np.empty(len(texts), dtype=np.object_)
    answer[:] = texts
    return answer.reshape((len(rows), kept) if batched else (kept,))


def _texts(row: np.ndarray, *, count: int, labels: Sequence[str]) -> Iterator[bytes]:
    keys = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    # Ascending from the end, turned round: descending, and stable where values are equal.
    order = (row.size - 1 - np.argsort(keys[::-1], kind="stable"))[::-1]
    for index in order[:count].tolist():
        value = row[index].item()
        text = f"{value:f}" if isinstance(value, float) else str(value)
        label = f":{labels[index]}" if index < len(labels) else ""
        yield f"{text}:{index}{label}".encode()
