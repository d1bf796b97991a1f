"""Measured peak FLOP/s and memory bandwidth of this machine: what a latency is compared with.

The peak is that of fp32 matrix products in the BLAS library under numpy, the bandwidth that of
reading (or copying) arrays with every core, once per size of what is read, since a small model
lives in the caches. Both are medians of several runs, kept in the user's cache folder under a
fingerprint of the machine; `ridgeline hardware` prints them.
"""

import argparse
import contextlib
import datetime
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import hardware_probe
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.hardware_probe import Gemm

_KIB, _MIB = 2**10, 2**20
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprint:
    """What the figures depend on; another fingerprint means measuring again."""

    cpu: str
    cores: int
    memory_bytes: int
    platform: str
    numpy: str
    blas: str

    @property
    def digest(self) -> str:
        """A short name for this machine, fit for a file name."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Hardware:
    """The measured roofs of one machine. Rates are per second, spreads relative to the median.

    `bandwidth_by_working_set` holds (bytes, bytes per second) in rising order of size,
    `load_average` how many threads ran on the machine in the minute before: above 0 by much, the
    rates came out too low.
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

    def floor_ns(self, *, flops: int, bytes_moved: int) -> float:
        """The least time, in nanoseconds, for that many operations and bytes on this machine.

        max(flops / peak, bytes / bandwidth): the roofline model (Williams, Waterman, Patterson,
        "Roofline: an insightful visual performance model for multicore architectures",
        Communications of the ACM 52(4), 2009), with the bandwidth of the caches for what fits
        into them. Raises InvalidInput for negative counts.
        """
        if flops < 0 or bytes_moved < 0:
            raise InvalidInput(
                f"counts must not be negative, received flops={flops}, bytes_moved={bytes_moved}"
            )
        bandwidth = self.bandwidth_bytes_per_s(working_set_bytes=bytes_moved)
        return 1e9 * max(flops / self.peak_flops_per_s, bytes_moved / bandwidth)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Hardware":
        """Read back what `dataclasses.asdict` made of one, as JSON. Raises CorruptData."""
        try:
            pairs = [(int(size), float(rate)) for size, rate in table["bandwidth_by_working_set"]]
            gemm = [Gemm.from_table(row) for row in table["gemm"]]
            return cls(
                **{
                    **table,
                    "fingerprint": Fingerprint(**table["fingerprint"]),
                    "bandwidth_by_working_set": tuple(pairs),
                    "gemm": tuple(gemm),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"this does not describe a machine: {error!r}") from error


def load(*, refresh: bool = False, announce: Callable[[str], object] = _LOG.info) -> Hardware:
    """The figures of this machine, from the cache, or measured (under 20 s) and cached.

    Measured again where `refresh` is set, the fingerprint differs or the file is damaged.
    `announce` is told before it is measured.
    """
    fingerprint = current_fingerprint()
    path = cache_path(fingerprint)
    if not refresh:
        with contextlib.suppress(NotFound, CorruptData):
            hardware = read(path)
            if hardware.fingerprint == fingerprint:
                return hardware
    announce("measuring this machine's peak FLOP/s and bandwidth, once, in under 20 s ...")
    hardware = measure(fingerprint)
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


def current_fingerprint() -> Fingerprint:
    """The fingerprint of this machine, this process's cores, and the numpy installed here."""
    build: Any = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    return Fingerprint(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform=platform.platform(),
        numpy=np.__version__,
        blas=f"{blas['name']} {blas['version']}",
    )


def measure(fingerprint: Fingerprint) -> Hardware:
    """Measure this machine, with one thread and with all; nothing else should run meanwhile."""
    cores, load_average = fingerprint.cores, os.getloadavg()[0]
    if load_average > cores / 4:
        _LOG.warning(
            "this machine is busy (load average %.1f on %d cores): its peak will come out too low; "
            "measure again with `ridgeline hardware --refresh` when it is idle",
            load_average,
            cores,
        )
    gemm = hardware_probe.gemm_rates(cores=cores)
    best = max(gemm, key=lambda row: row.rate.per_s).rate
    memory = hardware_probe.memory_rate(cores=cores, memory_bytes=fingerprint.memory_bytes)
    return Hardware(
        fingerprint=fingerprint,
        peak_flops_per_s=best.per_s,
        peak_spread=best.spread,
        gemm=tuple(gemm),
        memory_bandwidth_bytes_per_s=memory.per_s,
        memory_bandwidth_spread=memory.spread,
        bandwidth_by_working_set=tuple(
            (size, hardware_probe.read_rate(size, cores=cores).per_s)
            for size in hardware_probe.WORKING_SETS_BYTES
        ),
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        load_average=load_average,
    )


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline hardware`."""
    parser.add_argument(
        "--refresh", action="store_true", help="measure again, whatever the cache holds"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of this machine, as `Hardware.from_table` reads them."""
    announce = functools.partial(print, file=sys.stderr)
    return asdict(load(refresh=arguments.refresh, announce=announce))


def show(result: Mapping[str, Any]) -> None:
    """Print the figures as a table."""
    from rich.console import Console
    from rich.table import Table

    hardware = Hardware.from_table(result)
    machine = hardware.fingerprint
    table = Table(title=f"{machine.cpu}, {machine.cores} cores, {machine.blas}")
    table.add_column("measured")
    table.add_column("rate", justify="right")
    table.add_column("spread", justify="right")
    table.add_row(
        "peak fp32 (the best of these)", f"{hardware.peak_flops_per_s / 1e9:.1f} GFLOP/s", ""
    )
    for row in hardware.gemm:
        table.add_row(
            f"  {row.size} x {row.size} product, {row.threads} thread(s)",
            f"{row.rate.per_s / 1e9:.1f} GFLOP/s",
            f"{row.rate.spread:.1%}",
        )
    table.add_row(
        "memory bandwidth",
        f"{hardware.memory_bandwidth_bytes_per_s / 1e9:.1f} GB/s",
        f"{hardware.memory_bandwidth_spread:.1%}",
    )
    for size, rate in hardware.bandwidth_by_working_set:
        name = f"{size // _MIB} MiB" if size >= _MIB else f"{size // _KIB} KiB"
        table.add_row(f"  reading {name} over and over", f"{rate / 1e9:.1f} GB/s", "")
    console = Console()
    console.print(table)
    console.print(f"measured {hardware.measured_at}, load average {hardware.load_average:.1f}")
    console.print(f"kept in {cache_path(machine)}", soft_wrap=True)
