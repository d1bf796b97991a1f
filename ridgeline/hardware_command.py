"""The command `ridgeline hardware`: what this machine can do at best, and what a call costs."""

import argparse
import functools
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ridgeline.gpu import Gpu
from ridgeline.hardware import Hardware, cache_path, load
from ridgeline.roof import Roof

if TYPE_CHECKING:
    from rich.console import Console

_KIB, _MIB = 2**10, 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline hardware`."""
    parser.add_argument(
        *("--again", "--refresh"),
        action="store_true",
        help="measure again, whatever the cache holds",
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of this machine, as `Hardware.from_table` reads them, and datasheets of GPUs."""
    announce = functools.partial(print, file=sys.stderr)
    hardware = load(refresh=arguments.again, announce=announce)
    result = asdict(hardware)
    for table, gpu in zip(result["gpus"], hardware.gpus, strict=True):
        table["datasheet"] = asdict(gpu.sheet) if gpu.sheet else None
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print the figures as a table."""
    from rich.console import Console
    from rich.table import Table

    hardware = Hardware.from_table(result)
    machine = hardware.fingerprint
    table = Table(title=f"{machine.cpu}, {machine.cores} cores, {machine.blas}")
    for name, justify in (("measured", "left"), ("best", "right"), ("median", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("spread", justify="right")
    for row in (*_rates(hardware), *_latencies(hardware)):
        table.add_row(*row)
    console = Console()
    console.print(table)
    for kernel, reason in hardware.unsupported.items():
        console.print(f"not supported here: {kernel} ({reason})", soft_wrap=True, markup=False)
    for number, gpu in enumerate(hardware.gpus):
        _show_gpu(gpu, number=number, console=console)
    how = "stable" if hardware.stable else "NOT stable: the last round still raised the peak"
    console.print(
        f"measured {hardware.measured_at}, {hardware.rounds} rounds, {how}, "
        f"load average {hardware.load_average:.1f}"
    )
    console.print(f"kept in {cache_path(machine)}", soft_wrap=True)


def _rates(hardware: Hardware) -> list[tuple[str, str, str, str]]:
    rows = [("peak fp32 (the best of these)", _giga(hardware.peak_flops_per_s), "", "")]
    rows += [(f"peak {name}", _giga(rate), "", "") for name, rate in hardware.peaks]
    kernels = [
        (f"numpy, product {row.size} x {row.size}", row.threads, row.rate) for row in hardware.gemm
    ]
    kernels += [
        (f"{row.library}, {row.precision} {row.kernel}", row.threads, row.rate)
        for row in hardware.kernels
    ]
    rows += [
        (
            f"  {name}, {threads} thread(s)",
            _giga(rate.bound_per_s),
            _giga(rate.per_s),
            f"{rate.spread:.0%}",
        )
        for name, threads, rate in kernels
    ]
    bandwidth = f"{hardware.memory_bandwidth_bytes_per_s / 1e9:.1f} GB/s"
    rows.append(("memory bandwidth", bandwidth, "", f"{hardware.memory_bandwidth_spread:.0%}"))
    return rows + [(*row, "", "") for row in _reading(hardware)]


def _reading(roof: Roof) -> list[tuple[str, str]]:
    rows = []
    for size, rate in roof.bandwidth_by_working_set:
        name = f"{size // _MIB} MiB" if size >= _MIB else f"{size // _KIB} KiB"
        rows.append((f"  reading {name} over and over", f"{rate / 1e9:.1f} GB/s"))
    return rows


_PRECISIONS = {"fp32": "fp32, TF32 off", "tf32": "fp32, TF32 on"}


def _show_gpu(gpu: Gpu, *, number: int, console: "Console") -> None:
    """What was measured, and what its maker promises beside it."""
    from rich.table import Table

    sheet = gpu.sheet
    table = Table(
        title=f"gpu:{number}: {gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB, driver {gpu.driver}",
        caption=f"datasheet: {sheet.source}, dense" if sheet else "no datasheet is known here",
    )
    table.add_column("measured")
    for name in ("best", "median", "spread", "datasheet"):
        table.add_column(name, justify="right")
    promised = {name: _tera(rate) for name, rate in sheet.peaks.items()} if sheet else {}
    for row in gpu.kernels:
        name = f"{_PRECISIONS.get(row.precision, row.precision)}, {row.kernel}"
        best, median = _tera(row.rate.bound_per_s), _tera(row.rate.per_s)
        spread = f"{row.rate.spread:.0%}"
        table.add_row(name, best, median, spread, promised.get(row.precision, "?"))
    if gpu.roof:
        memory = f"{sheet.memory_bandwidth_bytes_per_s / 1e9:.1f} GB/s" if sheet else "?"
        best = f"{gpu.roof.memory_bandwidth_bytes_per_s / 1e9:.1f} GB/s"
        table.add_row("memory bandwidth", best, "", "", memory)
        for name, rate in _reading(gpu.roof):
            table.add_row(name, rate, "", "", "")
    console.print(table)
    if gpu.problem:
        console.print(f"not measured: {gpu.problem}", soft_wrap=True, markup=False)
    for kernel, reason in gpu.unsupported.items():
        console.print(f"not supported there: {kernel} ({reason})", soft_wrap=True, markup=False)


def _tera(rate: float) -> str:
    return f"{rate / 1e12:.1f} T/s"


def _giga(rate: float) -> str:
    return f"{rate / 1e9:.1f} G/s"


def _latencies(hardware: Hardware) -> list[tuple[str, str, str, str]]:
    named = (
        ("a call of ONNX Runtime that computes nothing", hardware.engine_call),
        ("4 KiB to another process and back, TCP", hardware.loopback),
        ("4 KiB to another process and back, gRPC (grpcio)", hardware.grpc),
    )
    return [
        (
            name,
            f"{each.p5_ns / 1e3:.0f} us",
            f"{each.p50_ns / 1e3:.0f} us",
            f"{(each.p95_ns - each.p5_ns) / each.p50_ns:.0%}",
        )
        for name, each in named
        if each
    ]
