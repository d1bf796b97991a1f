"""What bounds the speed of one processor: its peak, and how fast it reads how much."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.errors import InvalidInput

WIDTHS = {"fp32": 1, "fp16": 2, "bf16": 2, "int8": 4}  # numbers in the place of one of fp32


@dataclass(frozen=True, kw_only=True)
class Roof:
    """The measured roofs of one processor. Rates are per second.

    `bandwidth_by_working_set` holds (bytes, bytes per second) in rising order of size. `peaks`
    holds (precision, operations per second) of others than fp32, where a library has kernels for
    them.
    """

    peak_flops_per_s: float
    memory_bandwidth_bytes_per_s: float
    bandwidth_by_working_set: tuple[tuple[int, float], ...]
    peaks: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        rates = [rate for _, rate in self.bandwidth_by_working_set]
        for rate in (self.peak_flops_per_s, self.memory_bandwidth_bytes_per_s, *rates):
            if not (math.isfinite(rate) and rate > 0):
                raise InvalidInput(f"rates of a machine must be positive, received {rate}")
        sizes = [size for size, _ in self.bandwidth_by_working_set]
        if any(low >= high for low, high in itertools.pairwise([0, *sizes])):
            raise InvalidInput(f"working sets must be positive and rise, received {sizes}")

    def bandwidth_bytes_per_s(self, *, working_set_bytes: int) -> float:
        """The bandwidth at that working set: of the largest measured one that it holds.

        That is the faster of its two neighbours, so that a bound computed with it stays a bound;
        the smallest measured one serves everything below it.
        """
        rates = [rate for _, rate in self.bandwidth_by_working_set]
        within = sum(size <= working_set_bytes for size, _ in self.bandwidth_by_working_set)
        return rates[max(within - 1, 0)] if rates else self.memory_bandwidth_bytes_per_s

    def peak_of(self, precision: str) -> float:
        """The most operations per second at a precision, never less than fp32 reaches.

        Where no library here has kernels for it, what twice or four times as many numbers in a
        register would do: a bound must not trust that nobody will write one.
        """
        known = {"fp32": self.peak_flops_per_s} | dict(self.peaks)
        if precision in known:
            return max(known["fp32"], known[precision])
        width = WIDTHS.get(precision, 1)
        return max(
            rate * width / WIDTHS[name]
            for name, rate in known.items()
            if WIDTHS.get(name, width + 1) <= width
        )


def roof_fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a roof in what JSON holds of it. Raises KeyError, TypeError or ValueError."""
    pairs = [(int(size), float(rate)) for size, rate in table["bandwidth_by_working_set"]]
    return {
        "peak_flops_per_s": table["peak_flops_per_s"],
        "memory_bandwidth_bytes_per_s": table["memory_bandwidth_bytes_per_s"],
        "bandwidth_by_working_set": tuple(pairs),
        "peaks": tuple((str(name), float(rate)) for name, rate in table.get("peaks", ())),
    }


def falling(rates: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Each size at least as fast as those beyond it: if it came out slower, others disturbed it."""
    found = list(rates)
    return tuple(
        (size, max(rate for _, rate in found[place:])) for place, (size, _) in enumerate(found)
    )


def better_fields(one: Roof, other: Roof) -> dict[str, Any]:
    """The better figure of each kind: what a processor was once seen to do, it can do."""
    pairs = zip(one.bandwidth_by_working_set, other.bandwidth_by_working_set, strict=True)
    peaks = dict(one.peaks)
    peaks |= {name: max(peaks.get(name, 0.0), rate) for name, rate in other.peaks}
    return {
        "peak_flops_per_s": max(one.peak_flops_per_s, other.peak_flops_per_s),
        "memory_bandwidth_bytes_per_s": max(
            one.memory_bandwidth_bytes_per_s, other.memory_bandwidth_bytes_per_s
        ),
        "bandwidth_by_working_set": falling(
            (size, max(rate, again)) for (size, rate), (_, again) in pairs
        ),
        "peaks": tuple(peaks.items()),
    }
