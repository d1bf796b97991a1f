"""Measured peak FLOP/s and memory bandwidth of this machine: what a latency is compared with.

The peak is the fastest run of any kernel of several libraries (matrix products in the BLAS library
under numpy; matrix products and convolutions in ONNX Runtime), so that no model beats it; the
bandwidth the fastest of reading (or copying) arrays with every core, once per size of what is read,
since a small model lives in the caches. Everything is repeated until the best no longer rises, and
kept in the user's cache folder under a fingerprint of the machine, with medians and spreads;
`ridgeline hardware` prints it.
"""

import contextlib
import datetime
import itertools
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import echo_probe, hardware_probe
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.fingerprint import Fingerprint, current_fingerprint
from ridgeline.hardware_probe import Gemm, Kernel

_KIB, _MIB = 2**10, 2**20
_LOG = logging.getLogger(__name__)
_LATENCIES = ("engine_call", "loopback", "grpc")
_NUMBERS_PER_FP32 = {"fp16": 2, "bf16": 2, "int8": 4}
_LEAST_ROUNDS, _MOST_ROUNDS = 2, 5
_RISE = 0.02  # a round that raises the peak by less has found nothing new


@dataclass(frozen=True)
class Latency:
    """The median of so many ns, with the 5th and the 95th percentile beside it."""

    p50_ns: float
    p5_ns: float
    p95_ns: float
    count: int

    @classmethod
    def of(cls, times_ns: Sequence[int]) -> "Latency | None":
        """None for no times."""
        if not len(times_ns):
            return None
        p5, p50, p95 = (float(each) for each in np.percentile(times_ns, (5, 50, 95)))
        return cls(p50_ns=p50, p5_ns=p5, p95_ns=p95, count=len(times_ns))


@dataclass(frozen=True)
class Hardware:
    """The measured roofs of one machine. Rates are per second, spreads relative to the median.

    `bandwidth_by_working_set` holds (bytes, bytes per second) in rising order of size,
    `load_average` how many threads ran on the machine in the minute before: above 0 by much, the
    rates came out too low. `peaks` holds (precision, operations per second) of others than fp32,
    where a library has kernels for them. `rounds` says how often it was all repeated, `stable`
    whether the last round raised the peak no more. Unknown latencies are None.
    """

    fingerprint: Fingerprint
    peak_flops_per_s: float
    memory_bandwidth_bytes_per_s: float
    bandwidth_by_working_set: tuple[tuple[int, float], ...]
    measured_at: str
    peak_spread: float = 0.0
    memory_bandwidth_spread: float = 0.0
    gemm: tuple[Gemm, ...] = ()
    load_average: float = 0.0
    kernels: tuple[Kernel, ...] = ()
    peaks: tuple[tuple[str, float], ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    engine_call: Latency | None = None
    loopback: Latency | None = None
    grpc: Latency | None = None
    rounds: int = 1
    stable: bool = True

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
        known = dict(self.peaks).get(precision)
        factor = _NUMBERS_PER_FP32.get(precision, 1) if known is None else 1
        return max(factor * self.peak_flops_per_s, known or 0.0)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Hardware":
        """Read back what `dataclasses.asdict` made of one, as JSON. Raises CorruptData."""
        try:
            pairs = [(int(size), float(rate)) for size, rate in table["bandwidth_by_working_set"]]
            peaks = [(str(name), float(rate)) for name, rate in table.get("peaks", ())]
            latencies = {
                name: Latency(**table[name]) if table.get(name) else None for name in _LATENCIES
            }
            return cls(
                **{
                    **table,
                    **latencies,
                    "fingerprint": Fingerprint(**table["fingerprint"]),
                    "bandwidth_by_working_set": tuple(pairs),
                    "peaks": tuple(peaks),
                    "gemm": tuple(Gemm.from_table(row) for row in table["gemm"]),
                    "kernels": tuple(Kernel.from_table(row) for row in table.get("kernels", ())),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"this does not describe a machine: {error!r}") from error


def load(*, refresh: bool = False, announce: Callable[[str], object] = _LOG.info) -> Hardware:
    """The figures of this machine, from the cache, or measured (about half a minute) and cached.

    Measured again where `refresh` is set, the fingerprint differs or the file is damaged. Of each
    figure the better is kept, since others on the machine can only make it slower; to forget what
    was measured, delete the file.
    `announce` is told before it is measured.
    """
    fingerprint = current_fingerprint()
    path = cache_path(fingerprint)
    before: Hardware | None = None
    with contextlib.suppress(NotFound, CorruptData):
        before = read(path)
    if before and before.fingerprint != fingerprint:
        before = None
    if before and not refresh:
        return before
    announce("measuring this machine's peak FLOP/s and bandwidth, once, in about half a minute ...")
    hardware = measure(fingerprint)
    if before:  # what it was once seen to do, it can do
        hardware = _better(before, hardware)
    try:
        _write_atomically(path, json.dumps(asdict(hardware), indent=2))
    except OSError as error:
        _LOG.warning("the figures of this machine could not be kept: %s", error)
    return hardware


def read(path: Path) -> Hardware:
    """The figures in a file that `load` or `ridgeline hardware --json` wrote.

    Raises NotFound, or CorruptData where it holds anything else.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CorruptData(f"{path} is not JSON: {error}") from error
    try:
        return Hardware.from_table(table)
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from error


def cache_path(fingerprint: Fingerprint) -> Path:
    """Where the figures of that machine are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ridgeline" / f"hardware-{fingerprint.digest}.json"


def measure(fingerprint: Fingerprint) -> Hardware:
    """Measure this machine, with one thread and with all; nothing else should run meanwhile."""
    cores, load_average = fingerprint.cores, os.getloadavg()[0]
    if load_average > cores / 4:
        _LOG.warning(
            "this machine is busy (load average %.1f on %d cores): its peak will come out too low; "
            "measure again with `ridgeline hardware --again` when it is idle",
            load_average,
            cores,
        )
    best = _round(fingerprint)
    for number in range(2, _MOST_ROUNDS + 1):
        before, best = best, _better(best, _round(fingerprint))
        stable = best.peak_flops_per_s <= (1 + _RISE) * before.peak_flops_per_s
        best = replace(best, rounds=number, stable=stable)
        if stable and number >= _LEAST_ROUNDS:
            break
    return replace(best, load_average=load_average)


def _round(fingerprint: Fingerprint) -> Hardware:
    """Everything once."""
    cores = fingerprint.cores
    gemm = hardware_probe.gemm_rates(cores=cores)
    engine = hardware_probe.engine_rates(cores=cores)
    memory = hardware_probe.memory_rate(cores=cores, memory_bytes=fingerprint.memory_bytes)
    fp32 = [row.rate for row in gemm]
    fp32 += [row.rate for row in engine.kernels if row.precision == "fp32"]
    best = max(fp32, key=lambda rate: rate.bound_per_s)
    others: dict[str, float] = {}
    for row in engine.kernels:
        if row.precision != "fp32":
            others[row.precision] = max(others.get(row.precision, 0), row.rate.bound_per_s)
    return Hardware(
        fingerprint=fingerprint,
        peak_flops_per_s=best.bound_per_s,
        peak_spread=best.spread,
        gemm=tuple(gemm),
        kernels=engine.kernels,
        peaks=tuple(others.items()),
        unsupported=engine.unsupported,
        memory_bandwidth_bytes_per_s=memory.bound_per_s,
        memory_bandwidth_spread=memory.spread,
        bandwidth_by_working_set=_falling(
            (size, hardware_probe.read_rate(size, cores=cores).bound_per_s)
            for size in hardware_probe.WORKING_SETS_BYTES
        ),
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        engine_call=Latency.of(engine.call_ns),
        loopback=Latency.of(echo_probe.tcp_ns()),
        grpc=Latency.of(echo_probe.grpc_ns()),
    )


def _falling(rates: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Each size at least as fast as those beyond it: if it came out slower, others disturbed it."""
    found = list(rates)
    return tuple(
        (size, max(rate for _, rate in found[place:])) for place, (size, _) in enumerate(found)
    )


def _better(one: Hardware, other: Hardware) -> Hardware:
    """The better figure of each kind; the tables are those of the round with the higher peak."""
    whole = max(one, other, key=lambda each: each.peak_flops_per_s)
    pairs = zip(one.bandwidth_by_working_set, other.bandwidth_by_working_set, strict=True)
    peaks = dict(one.peaks)
    peaks |= {name: max(peaks.get(name, 0.0), rate) for name, rate in other.peaks}
    return replace(
        whole,
        memory_bandwidth_bytes_per_s=max(
            one.memory_bandwidth_bytes_per_s, other.memory_bandwidth_bytes_per_s
        ),
        bandwidth_by_working_set=_falling(
            (size, max(rate, again)) for (size, rate), (_, again) in pairs
        ),
        peaks=tuple(peaks.items()),
        engine_call=_quicker(one.engine_call, other.engine_call),
        loopback=_quicker(one.loopback, other.loopback),
        grpc=_quicker(one.grpc, other.grpc),
    )


def _quicker(one: Latency | None, other: Latency | None) -> Latency | None:
    known = [each for each in (one, other) if each]
    return min(known, key=lambda each: each.p50_ns, default=None)


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
