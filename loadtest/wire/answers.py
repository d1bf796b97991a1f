"""The different answers that came to each kind of request, and how often each did.

Equal requests get equal answers, but for the last bits that depend on what shared their batch: so
there are few, and comparing bytes checks every single answer for less than a microsecond.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MOST_VARIANTS = 1024  # of one kind; beyond, answers are only counted
_MOST_BYTES = 64 * 2**20  # of all together


@dataclass(frozen=True)
class Variant:
    """One answer to requests of a kind, as bytes, and how often it came."""

    kind: int
    payload: bytes
    count: int


class Answers:
    """Collects them; `unseen` counts those that were too many to be kept."""

    def __init__(self, kinds: int) -> None:
        self._counts: list[dict[bytes, int]] = [{} for _ in range(kinds)]
        self._left_bytes = _MOST_BYTES
        self.unseen = 0

    def note(self, kind: int, payload: bytes) -> None:
        """One answer came."""
        counts = self._counts[kind]
        count = counts.get(payload)
        if count is not None:
            counts[payload] = count + 1
        elif len(counts) < _MOST_VARIANTS and len(payload) <= self._left_bytes:
            counts[payload] = 1
            self._left_bytes -= len(payload)
        else:
            self.unseen += 1

    def variants(self) -> list[Variant]:
        """All that were kept."""
        return [
            Variant(kind, payload, count)
            for kind, counts in enumerate(self._counts)
            for payload, count in counts.items()
        ]


def to_arrays(variants: Iterable[Variant]) -> dict[str, npt.NDArray[np.generic]]:
    """As arrays for an .npz file."""
    found = list(variants)
    return {
        "answer_kinds": np.array([each.kind for each in found], dtype=np.int64),
        "answer_counts": np.array([each.count for each in found], dtype=np.int64),
        "answer_sizes": np.array([len(each.payload) for each in found], dtype=np.int64),
        "answer_bytes": np.frombuffer(b"".join(each.payload for each in found), dtype=np.uint8),
    }


def from_arrays(arrays: "np.lib.npyio.NpzFile") -> list[Variant]:
    """Read back."""
    whole, ends = arrays["answer_bytes"].tobytes(), np.cumsum(arrays["answer_sizes"]).tolist()
    begins = [0, *ends]
    columns = zip(arrays["answer_kinds"], arrays["answer_counts"], begins, ends, strict=False)
    return [Variant(int(kind), whole[begin:end], int(count)) for kind, count, begin, end in columns]
