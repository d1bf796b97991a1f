"""ONNX Runtime alone, without a server: what `make bench` compares the gateway with.

Usage: python -m loadtest.bare_engine MODEL.onnx SECONDS; prints JSON. The session has the settings
of the gateway's own; inputs are random. A process of its own, so that nothing else runs in it.
"""

import json
import os
import statistics
import sys
import time

import numpy as np
import onnxruntime

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_NS_PER_MS, _NS_PER_S = 1e6, 1e9


def main() -> None:
    """Time each batch size for an equal share of the given seconds."""
    path, seconds = sys.argv[1], float(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    share_ns = int(seconds * _NS_PER_S / len(_BATCH_SIZES))
    median_ns = {size: _median_ns(session, rows=size, budget_ns=share_ns) for size in _BATCH_SIZES}
    best = max(_BATCH_SIZES, key=lambda size: size / median_ns[size])
    result = {
        "p50_ms": median_ns[1] / _NS_PER_MS,
        "best_batch_size": best,
        "best_samples_per_s": best * _NS_PER_S / median_ns[best],
    }
    print(json.dumps(result))


def _median_ns(session: onnxruntime.InferenceSession, *, rows: int, budget_ns: int) -> float:
    random = np.random.default_rng(0)
    inputs = {
        tensor.name: random.random((rows, *tensor.shape[1:]), dtype=np.float32)
        for tensor in session.get_inputs()
    }
    session.run(None, inputs)
    times = []
    end_ns = time.perf_counter_ns() + budget_ns
    while (begin_ns := time.perf_counter_ns()) < end_ns:
        session.run(None, inputs)
        times.append(time.perf_counter_ns() - begin_ns)
    return statistics.median(times)


if __name__ == "__main__":
    main()
