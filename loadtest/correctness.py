"""Whether a server under load still answers as it does when it is left alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadtest.messages import outputs
from loadtest.sample_files import Array
from loadtest.wire.answers import Variant
from ridgeline.errors import CorruptData

RELATIVE_TOLERANCE = 1e-3
_ABSOLUTE_SHARE = 1e-3  # of the largest element: what rounding does to small ones beside it

Outputs = dict[str, Array]


@dataclass(frozen=True)
class Checked:
    """Answers under load: how many were compared, were wrong, were too many kinds to be kept.

    `first_wrong` tells what was wrong. With labels, `accuracy` is the share of samples whose class
    was right, and `accuracy_alone` that of the answers given without load.
    """

    compared: int
    wrong: int
    unseen: int
    first_wrong: str | None = None
    accuracy: float | None = None
    accuracy_alone: float | None = None


def check(
    answers: Sequence[Variant],
    *,
    protocol: str,
    expected: Sequence[Outputs],
    unseen: int,
    told: Sequence[Mapping[str, Array]] = (),
    labels: Sequence[npt.NDArray[np.int64]] | None = None,
) -> Checked:
    """Compare every different answer with what the same request got without load, `expected`.

    Outputs that the samples' files tell are compared with those instead: `told`, for each message.
    `labels` holds the right classes of each message; the class is the largest element of the first
    output.
    """
    wrong, first, right, classified = 0, None, 0, 0
    for variant in answers:
        right_outputs = expected[variant.kind] | (dict(told[variant.kind]) if told else {})
        difference, found = _difference(variant.payload, protocol=protocol, expected=right_outputs)
        if difference:
            wrong += variant.count
            first = first or difference
        if labels is not None and found is not None:
            right += variant.count * _right(found, labels[variant.kind])
            classified += variant.count * len(labels[variant.kind])
    compared = sum(variant.count for variant in answers)
    if labels is None or not classified:
        return Checked(compared, wrong, unseen, first)
    alone = sum(_right(each, own) for each, own in zip(expected, labels, strict=True))
    total = sum(len(own) for own in labels)
    return Checked(compared, wrong, unseen, first, right / classified, alone / total)


def _difference(
    payload: bytes, *, protocol: str, expected: Outputs
) -> tuple[str | None, Outputs | None]:
    """What is wrong with an answer (None if nothing), and its outputs if they can be read."""
    try:
        found = outputs(payload, protocol=protocol)
    except CorruptData as error:
        return str(error), None
    for name, array in expected.items():
        other = found.get(name)
        if other is None or other.shape != array.shape or other.dtype != array.dtype:
            what = "lacks it" if other is None else f"has {other.dtype} {list(other.shape)}"
            return f"output {name!r}: expected {array.dtype} {list(array.shape)}, {what}", found
        if not _alike(other, array):
            return f"output {name!r}: {_distance(other, array)}", found
    return None, found


def _alike(found: Array, expected: Array) -> bool:
    if expected.dtype.kind not in "fV" or not expected.size:
        return bool(np.array_equal(found, expected))
    one, other = found.astype(np.float64), expected.astype(np.float64)
    largest = float(np.max(np.abs(other), initial=0, where=np.isfinite(other)))
    absolute = _ABSOLUTE_SHARE * largest
    return bool(np.allclose(one, other, RELATIVE_TOLERANCE, absolute, equal_nan=True))


def _distance(found: Array, expected: Array) -> str:
    if expected.dtype.kind not in "fViu":
        return "another value"
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return f"up to {np.max(apart):.3g} away from what is right"


def _right(found: Outputs, labels: npt.NDArray[np.int64]) -> int:
    scores = next(iter(found.values())).reshape(len(labels), -1)
    return int(np.count_nonzero(scores.argmax(axis=1) == labels))
