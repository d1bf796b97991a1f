"""Measured peak FLOP/s and memory bandwidth of this machine: what a latency is compared with.

The peak is the fastest run of any kernel of several libraries (matrix products in the BLAS library
under numpy; matrix products and convolutions in ONNX Runtime), so that no model beats it; the
bandwidth the fastest of reading (or copying) arrays with every core, once per size of what is read,
since a small model lives in the caches. Everything is repeated until the best no longer rises, and
kept in the user's cache folder under a fingerprint of the machine, with medians and spreads;
`ridgeline hardware` prints it. GPUs have roofs of their own (`ridgeline.gpu`).
"""

import contextlib
import datetime
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import echo_probe, gpu, hardware_probe
from ridgeline.errors import CorruptData, NotFound
from ridgeline.fingerprint import Fingerprint, current_fingerprint
from ridgeline.gpu import Gpu
from ridgeline.hardware_probe import Gemm, Kernel
from ridgeline.roof import Roof, better_fields, falling, roof_fields

FORMAT = 2  # of the cache; 1 knew no GPUs
CPU = "cpu"  # the name of that device; GPUs are "gpu:0", "gpu:1", ...
_LOG = logging.getLogger(__name__)
_LATENCIES = ("engine_call", "loopback", "grpc")
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


@dataclass(frozen=True, kw_only=True)
class Hardware(Roof):
    """One machine: the roof of its CPU, and its GPUs. Spreads are relative to the median.

    `load_average` is how many threads ran on the machine in the minute before: above 0 by much, the
    rates came out too low. `rounds` says how often it was all repeated, `stable` whether the last
    round raised the peak no more. Unknown latencies are None.
    """

    fingerprint: Fingerprint
    measured_at: str
    peak_spread: float = 0.0
    memory_bandwidth_spread: float = 0.0
    gemm: tuple[Gemm, ...] = ()
    load_average: float = 0.0
    kernels: tuple[Kernel, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    engine_call: Latency | None = None
    loopback: Latency | None = None
    grpc: Latency | None = None
    rounds: int = 1
    stable: bool = True
    gpus: tuple[Gpu, ...] = ()
    format: int = FORMAT

    def roof_of(self, device: str) -> Roof:
        """The roof of "cpu", or of a GPU such as "gpu:0".

        Raises NotFound where there is no such device, or it could not be measured.
        """
        if device == CPU:
            return self
        number = device.removeprefix("gpu:")
        if not number.isdecimal() or int(number) >= len(self.gpus):
            raise NotFound(f"this machine has {len(self.gpus)} GPUs that are known, no {device!r}")
        found = self.gpus[int(number)]
        if found.roof is None:
            raise NotFound(f"{device} ({found.name}) was not measured: {found.problem}")
        return found.roof

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Hardware":
        """Read back what `dataclasses.asdict` made of one, as JSON. Raises CorruptData.

        What was written in the first format has no GPUs.
        """
        try:
            roof = roof_fields(table)
            latencies = {
                name: Latency(**table[name]) if table.get(name) else None for name in _LATENCIES
            }
            return cls(
                **{
                    "format": 1,
                    **table,
                    **latencies,
                    **roof,
                    "fingerprint": Fingerprint(**table["fingerprint"]),
                    "gemm": tuple(Gemm.from_table(row) for row in table["gemm"]),
                    "kernels": tuple(Kernel.from_table(row) for row in table.get("kernels", ())),
                    "gpus": tuple(Gpu.from_table(row) for row in table.get("gpus", ())),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"this does not describe a machine: {error!r}") from error


def load(*, refresh: bool = False, announce: Callable[[str], object] = _LOG.info) -> Hardware:
    """The figures of this machine, from the cache, or measured (about half a minute) and cached.

    Measured again where `refresh` is set, the fingerprint differs, or the file is damaged or of
    another format. Of each figure the better is kept, since others on the machine can only make it
    slower; to forget what was measured, delete the file.
    `announce` is told before it is measured.
    """
    fingerprint = current_fingerprint()
    path = cache_path(fingerprint)
    before: Hardware | None = None
    with contextlib.suppress(NotFound, CorruptData):
        before = read(path)
    if before and before.fingerprint != fingerprint:
        before = None
    if before and before.format == FORMAT and not refresh:
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
    gpus = tuple(gpu.measured(each) for each in gpu.installed())
    return replace(best, load_average=load_average, gpus=gpus)


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
        bandwidth_by_working_set=falling(
            (size, hardware_probe.read_rate(size, cores=cores).bound_per_s)
            for size in hardware_probe.WORKING_SETS_BYTES
        ),
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        engine_call=Latency.of(engine.call_ns),
        loopback=Latency.of(echo_probe.tcp_ns()),
        grpc=Latency.of(echo_probe.grpc_ns()),
    )


def _better(one: Hardware, other: Hardware) -> Hardware:
    """The better figure of each kind; the tables are those of the round with the higher peak.

    `other` is the later one: what there is now of GPUs, and the format, are its.
    """
    whole = max(one, other, key=lambda each: each.peak_flops_per_s)
    return replace(
        whole,
        **better_fields(one, other),
        engine_call=_quicker(one.engine_call, other.engine_call),
        loopback=_quicker(one.loopback, other.loopback),
        grpc=_quicker(one.grpc, other.grpc),
        gpus=gpu.better(one.gpus, other.gpus),
        format=other.format,
    )


def _quicker(one: Latency | None, other: Latency | None) -> Latency | None:
    known = [each for each in (one, other) if each]
    return min(known, key=lambda each: each.p50_ns, default=None)


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)
