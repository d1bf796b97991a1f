"""ONNX Runtime alone, without a server: what `make bench` compares the gateway with.

Usage: python -m loadtest.bench.bare_engine MODEL.onnx SECONDS [WORKERS THREADS ROWS]; prints JSON.
The three numbers choose one way of running, whose rate alone is then measured. Inputs are random. A
process of its own, so that nothing else runs in it.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_NS_PER_MS, _NS_PER_S, _US_PER_S = 1e6, 1e9, 1e6
_LEAST_RUNS = 4  # of each way, however long they take
_LONGEST_BATCH_S = 0.5
_PARTS = 2 * len(_BATCH_SIZES) + 2
_REST_S = 0.0002  # about what lies between two requests that come one at a time


def main() -> None:
    """Measure one way of running, or all of them."""
    path, seconds = sys.argv[1], float(sys.argv[2])
    if len(sys.argv) > 3:
        workers, threads, rows = map(int, sys.argv[3:])
        session = _session(path, threads=threads)
        rate = _samples_per_s(session, rows=rows, workers=workers, for_s=seconds)
        print(json.dumps({"samples_per_s": rate}))
    else:
        print(json.dumps(_survey(path, seconds=seconds)))


def _survey(path: str, *, seconds: float) -> dict[str, Any]:
    """Every way of running and every batch size, each for an equal share of the time."""
    share_s = seconds / _PARTS
    cores = len(os.sched_getaffinity(0))
    narrow, wide = (_session(path, threads=threads) for threads in (1, cores))
    rates = {}
    for size in _BATCH_SIZES:
        # One batch with all cores, and as many batches at once as there are cores.
        rates[1, cores, size] = _samples_per_s(wide, rows=size, workers=1, for_s=share_s)
        rates[cores, 1, size] = _samples_per_s(narrow, rows=size, workers=cores, for_s=share_s)
        if size / rates[1, cores, size] > _LONGEST_BATCH_S:
            break  # batches twice as large have nothing left to save
    best = max(rates, key=lambda key: rates[key])
    alone = [_times_ns(session, rows=1, for_s=share_s / 2) for session in (narrow, wide)]
    cpu_s, runs = time.process_time(), _times_ns(narrow, rows=1, for_s=share_s)
    cpu_us_per_sample = _US_PER_S * (time.process_time() - cpu_s) / len(runs)
    rested = _times_ns(narrow, rows=1, for_s=share_s, rest_s=_REST_S)
    return {
        "best": best,
        "single_samples_per_s": max(rate for (*_, size), rate in rates.items() if size == 1),
        "p50_ms": min(statistics.median(times) for times in alone) / _NS_PER_MS,
        "rested_p50_ms": statistics.median(rested) / _NS_PER_MS,
        "cpu_us_per_sample": cpu_us_per_sample,
    }


def _session(path: str, *, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _samples_per_s(
    session: onnxruntime.InferenceSession, *, rows: int, workers: int, for_s: float
) -> float:
    counts = [0] * workers
    run = _runner(session, rows=rows)

    def work(number: int) -> None:
        while time.perf_counter() < end_s or counts[number] < _LEAST_RUNS * rows:
            run()
            counts[number] += rows

    begin_s = time.perf_counter()
    end_s = begin_s + for_s
    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin_s)


def _times_ns(
    session: onnxruntime.InferenceSession, *, rows: int, for_s: float, rest_s: float = 0.0
) -> list[int]:
    """Each run's time; the core may sleep for `rest_s` before each, as a server's does."""
    run = _runner(session, rows=rows)
    times: list[int] = []
    end_ns = time.perf_counter_ns() + int(for_s * _NS_PER_S)
    while len(times) < _LEAST_RUNS or time.perf_counter_ns() < end_ns:
        if rest_s:
            time.sleep(rest_s)
        begin_ns = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - begin_ns)
    return times


def _runner(session: onnxruntime.InferenceSession, *, rows: int) -> Callable[[], object]:
    """Runs a batch of random inputs, once already: the first run allocates."""
    random = np.random.default_rng(0)
    inputs = {
        tensor.name: random.random((rows, *tensor.shape[1:]), dtype=np.float32)
        for tensor in session.get_inputs()
    }
    session.run(None, inputs)
    return lambda: session.run(None, inputs)


if __name__ == "__main__":
    main()
