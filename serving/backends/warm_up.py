"""The first runs of a model: whether it has a batch axis, and how long its batches take."""

import logging
import time

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.datatypes import datatype
from ridgeline.model import FREE, ModelSpec, TensorSpec, spec_of
from serving.engine import Engine
from serving.service_time import BATCH_COST_NS, ServiceTime

logger = logging.getLogger(__name__)

# Sizes are run in turns, so that a machine that changes its speed does not prefer one of them.
_LEAST_TURNS, _MOST_TURNS = 3, 15  # the median of three is not the first, which allocates
_SHORT_WARM_UP_NS, _WARM_UP_NS = 500_000_000, 3_000_000_000


def batch_axis_holds(config: model_config_pb2.ModelConfig, *, engine: Engine) -> bool:
    """Run the model on zeros, as warm-up and to see that its outputs have a row per input row.

    A model that refuses zeros (an index out of range, say) is served all the same, and says so.
    """
    spec = spec_of(config)
    names = [tensor.name for tensor in spec.outputs]
    for rows in (2, config.max_batch_size) if spec.batches else (0,):
        rows = min(rows, config.max_batch_size)
        try:
            outputs = engine.run(zeros(spec, rows=rows), outputs=names)
        except Exception as error:  # noqa: BLE001 - kernels raise many unrelated types
            logger.warning("model %r could not be warmed up with zeros: %s", spec.name, error)
            return True
        if spec.batches and any(not array.ndim or array.shape[0] != rows for array in outputs):
            shapes = [list(array.shape) for array in outputs]
            logger.warning("model %r gave %s for %d rows", spec.name, shapes, rows)
            return False
    return True


def measured_times(spec: ModelSpec, *, engine: Engine) -> ServiceTime | None:
    """Run every batch size that will be used, on zeros, and note its time, several times
    within some seconds. None where shapes are free or zeros are refused: the first requests tell.
    """
    if any(FREE in tensor.shape for tensor in spec.inputs):
        return None
    names = [tensor.name for tensor in spec.outputs]
    max_rows = spec.max_batch_size if spec.batches else 1
    times = ServiceTime(max_rows, batch_cost_ns=BATCH_COST_NS)
    took: dict[int, list[int]] = {rows: [] for rows in times.sizes}
    begin_ns = time.perf_counter_ns()
    for turn in range(1, _MOST_TURNS + 1):
        rest_ns = min(_WARM_UP_NS, _SHORT_WARM_UP_NS)
        limit_ns = begin_ns + (_WARM_UP_NS if turn <= _LEAST_TURNS else rest_ns)
        for rows in times.sizes:
            inputs = zeros(spec, rows=rows)
            run_ns = time.perf_counter_ns()
            if run_ns > limit_ns and took[times.sizes[0]]:
                break
            try:
                engine.run(inputs, outputs=names)
            except Exception:  # noqa: BLE001 - kernels raise many unrelated types
                return None
            took[rows].append(time.perf_counter_ns() - run_ns)
    for rows, times_ns in took.items():
        if times_ns:
            times.calibrate(rows=rows, took_ns=sorted(times_ns)[len(times_ns) // 2])
    return times


def zeros(spec: ModelSpec, *, rows: int) -> dict[str, np.ndarray]:
    batch = (rows,) if spec.batches else ()
    return {
        tensor.name: _filled(
            (*batch, *(1 if size == FREE else size for size in tensor.shape)), tensor
        )
        for tensor in spec.inputs
    }


def _filled(shape: tuple[int, ...], tensor: TensorSpec) -> np.ndarray:
    if tensor.datatype == "BYTES":
        return np.full(shape, b"", dtype=np.object_)
    return np.zeros(shape, dtype=datatype(tensor.datatype).numpy)
