"""The measurements behind `ridgeline.hardware`: matrix products, memory, the engine."""

import contextlib
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.errors import StepFailed

_KIB, _MIB = 2**10, 2**20
WORKING_SETS_BYTES = tuple(64 * _KIB * 2**power for power in range(13))  # 64 KiB ... 256 MiB
_GEMM_SIZES = (512, 1024, 2048)
_GEMM_RUNS, _BANDWIDTH_RUNS = 5, 15
_GEMM_SIZE_LEAST_NS = 400_000_000  # short products are repeated this long: others disturb in bursts
_GEMM_SIZE_LIMIT_S = 5.0  # a size that would take longer than this altogether is left out
_TRAFFIC_BYTES = 128 * _MIB  # what each thread reads per run, so that starting it costs little
_PIECE_BYTES = 32 * _KIB  # the least a thread gets; with less, numpy's own loop would be timed
_ENGINE_SECONDS = 4.0
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclass(frozen=True)
class Rate:
    """A median rate per second and its spread: (fastest - slowest) / median of `runs` runs.

    `best_per_s` is the fastest of them: what the machine can do, where others may disturb it.
    """

    per_s: float
    spread: float
    runs: int
    best_per_s: float = 0.0

    @property
    def bound_per_s(self) -> float:
        """The rate that a bound must be computed with."""
        return max(self.per_s, self.best_per_s)


@dataclass(frozen=True)
class Gemm:
    """The rate, in FLOP/s, of fp32 products of two `size` x `size` matrices."""

    size: int
    threads: int
    rate: Rate

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Gemm":
        """Read back what `dataclasses.asdict` made of one."""
        return cls(**{**table, "rate": Rate(**table["rate"])})


@dataclass(frozen=True)
class Kernel:
    """The rate of another kernel, in operations per second; one multiply-add is two.

    On a GPU, `threads` is 0.
    """

    library: str
    kernel: str
    precision: str
    threads: int
    rate: Rate

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Kernel":
        """Read back what `dataclasses.asdict` made of one."""
        return cls(**{**table, "rate": Rate(**table["rate"])})


@dataclass(frozen=True)
class Engine:
    """What ONNX Runtime reaches here; `call_ns` is the price of a call that computes nothing.

    `unsupported` says which kernels it does not have, and in its own words why.
    """

    kernels: tuple[Kernel, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    call_ns: tuple[int, ...] = ()


def engine_rates(*, cores: int) -> Engine:
    """Kernels of ONNX Runtime, measured in a process of its own; none where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        return Engine()
    words = [sys.executable, "-m", "ridgeline.engine_probe", str(cores), str(_ENGINE_SECONDS)]
    text = output_of(words, environment=dict(os.environ), what="kernels of ONNX Runtime")
    found = json.loads(text)
    return Engine(
        kernels=tuple(Kernel.from_table(row) for row in found["kernels"]),
        unsupported=found["unsupported"],
        call_ns=tuple(found["call_ns"]),
    )


def gemm_rates(*, cores: int) -> list[Gemm]:
    """Rates of matrix products with one thread, and with one for each of `cores`."""
    return [row for threads in sorted({1, cores}) for row in _gemm_in_a_process(threads)]


def measure_gemm(*, threads: int, sizes: Sequence[int]) -> list[Gemm]:
    """Rates of square fp32 products in this process, whose BLAS was started with `threads`.

    A product of two n x n matrices is 2 n**3 FLOPs. Sizes that would take too long are left out.
    """
    rows: list[Gemm] = []
    generator = np.random.default_rng(0)
    for size in sizes:
        flops = 2 * size**3
        if rows and (_GEMM_RUNS + 1) * flops / rows[-1].rate.per_s > _GEMM_SIZE_LIMIT_S:
            break
        left, right = generator.random((2, size, size), dtype=np.float32)
        product = functools.partial(np.matmul, left, right, out=np.empty_like(left))
        product()  # starts the threads, touches the memory
        times: list[int] = []
        end_ns = time.perf_counter_ns() + _GEMM_SIZE_LEAST_NS
        while len(times) < _GEMM_RUNS or time.perf_counter_ns() < end_ns:
            times.append(_timed_ns(product))
        rows.append(Gemm(size=size, threads=threads, rate=rate_of(flops, times)))
    return rows


def _gemm_in_a_process(threads: int) -> list[Gemm]:
    """BLAS libraries fix their number of threads as they are loaded, hence a process for each."""
    program = (
        "import dataclasses, json; from ridgeline.hardware_probe import measure_gemm; "
        f"rows = measure_gemm(threads={threads}, sizes={list(_GEMM_SIZES)}); "
        "print(json.dumps([dataclasses.asdict(row) for row in rows]))"
    )
    environment = {**os.environ, **dict.fromkeys(_BLAS_THREADS, str(threads))}
    words = [sys.executable, "-c", program]
    rows = json.loads(output_of(words, environment=environment, what="the peak FLOP/s"))
    return [Gemm.from_table(row) for row in rows]


def output_of(words: Sequence[str], *, environment: Mapping[str, str], what: str) -> str:
    """What a program of ours prints. Raises StepFailed with what it complains of."""
    done = subprocess.run(  # noqa: S603 - our own program
        words, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise StepFailed(f"measuring {what} failed: {done.stderr.strip()}")
    return done.stdout


def read_rate(size: int, *, cores: int) -> Rate:
    """Bytes per second at which all cores together read `size` bytes over and over.

    Each thread walks its own piece many times within one numpy call: a row of stride zero is the
    same memory again. The largest of bytes is the cheapest reduction numpy has, and vectorised.
    """
    threads = max(1, min(cores, size // _PIECE_BYTES))
    piece = size // threads
    repeats = max(1, _TRAFFIC_BYTES // piece)
    calls = []
    for _ in range(threads):
        walk = np.broadcast_to(np.ones(piece, dtype=np.uint8), (repeats, piece))
        out = np.empty(repeats, dtype=np.uint8)
        calls.append(functools.partial(np.maximum.reduce, walk, axis=1, out=out))
    return _together(calls, amount=threads * piece * repeats)


def memory_rate(*, cores: int, memory_bytes: int) -> Rate:
    """Bytes per second beyond the caches: the better of reading and copying, with all cores.

    Over eight times the largest cache (512 MiB at least, an eighth of `memory_bytes` at most). A
    copy counts what it reads and what it writes, not the reads that a cache adds to a write.
    """
    wanted = max(512 * _MIB, 8 * _last_level_cache_bytes())
    piece = min(wanted, memory_bytes // 8) // cores // 2
    halves = [np.ones((2, piece), dtype=np.uint8) for _ in range(cores)]
    moved = 2 * piece * cores  # a copy reads one half and writes the other
    reading = [functools.partial(np.maximum.reduce, pair, axis=None) for pair in halves]
    copying = [functools.partial(np.copyto, pair[0], pair[1]) for pair in halves]
    rates = [_together(calls, amount=moved) for calls in (reading, copying)]
    return max(rates, key=lambda rate: rate.per_s)


def _together(calls: Sequence[Callable[[], object]], *, amount: int) -> Rate:
    """The rate at which `calls`, one thread each (numpy frees the GIL), move `amount` bytes."""
    barrier = threading.Barrier(len(calls))

    def timed(call: Callable[[], object]) -> tuple[int, int]:
        barrier.wait()
        start_ns = time.perf_counter_ns()
        call()
        return start_ns, time.perf_counter_ns()

    with ThreadPoolExecutor(len(calls)) as pool:
        times_ns = []
        for _ in range(_BANDWIDTH_RUNS + 1):
            starts, ends = zip(*pool.map(timed, calls), strict=True)
            times_ns.append(max(ends) - min(starts))
    return rate_of(amount, times_ns[1:])  # the first run brought the bytes into the caches


def _timed_ns(call: Callable[[], object]) -> int:
    start_ns = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start_ns


def rate_of(amount: int, times_ns: Sequence[int]) -> Rate:
    """The rate of runs that did `amount` each, in those times."""
    rates = [1e9 * amount / time_ns for time_ns in times_ns]
    median = statistics.median(rates)
    spread = (max(rates) - min(rates)) / median
    return Rate(per_s=median, spread=spread, runs=len(rates), best_per_s=max(rates))


def _last_level_cache_bytes() -> int:
    """The size of the largest cache that Linux names for the first core; 0 where it names none."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text().strip().removesuffix("K")) * _KIB)
    return max(sizes)
