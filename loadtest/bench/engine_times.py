"""How long ONNX Runtime takes for a network made on the spot, with all cores.

Usage: python -m loadtest.bench.engine_times NETWORK SECONDS BATCH_SIZE ...; prints JSON, a row for
each batch size: the median time in ns, and what its operators do and move.
"""

import json
import os
import statistics
import sys
import time
from dataclasses import asdict

import numpy as np
import onnxruntime

from loadtest.bench.networks import NETWORKS
from ridgeline import graph_profile

_LEAST_RUNS, _LONGEST_NS = 3, 1_000_000_000
_NS_PER_S = 1e9


def main() -> None:
    """Time each batch size for the given seconds; larger ones that would take too long are left."""
    name, seconds, sizes = sys.argv[1], float(sys.argv[2]), [int(word) for word in sys.argv[3:]]
    model = NETWORKS[name].build()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rows = []
    for size in sizes:
        times = _times_ns(session, rows=size, seconds=seconds)
        operators = graph_profile.profile(model, batches=True, rows=size)
        rows.append(
            {
                "model": name,
                "batch_size": size,
                # The median of the faster half: of two cores, others often take one for a while.
                "time_ns": statistics.median(sorted(times)[: -(-len(times) // 2)]),
                "median_ns": statistics.median(times),
                "operators": [asdict(operator) for operator in operators],
            }
        )
        if times[-1] > _LONGEST_NS:
            break
    print(json.dumps(rows))


def _times_ns(session: onnxruntime.InferenceSession, *, rows: int, seconds: float) -> list[int]:
    random = np.random.default_rng(0)
    feed = {
        tensor.name: random.random((rows, *tensor.shape[1:]), dtype=np.float32)
        for tensor in session.get_inputs()
    }
    session.run(None, feed)  # allocates
    times: list[int] = []
    end_ns = time.perf_counter_ns() + int(seconds * _NS_PER_S)
    while len(times) < _LEAST_RUNS or time.perf_counter_ns() < end_ns:
        begin_ns = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - begin_ns)
    return times


if __name__ == "__main__":
    main()
