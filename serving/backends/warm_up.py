"""The first runs of a model: whether it has a batch axis, and how long its batches take."""

import logging
import time

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.datatypes import datatype
from ridgeline.model import FREE, ModelSpec, TensorSpec, spec_of
from serving.engine import Engine
from serving.service_time import ServiceTime

logger = logging.getLogger(__name__)

_WARM_UP_RUNS = 3  # per batch size: the median is not the first, which allocates
_WARM_UP_NS = 3_000_000_000


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
    """Run every batch size that will be used, on zeros, and note its time; the larger ones only
    within some seconds. None where shapes are free or zeros are refused: the first requests tell.
    """
    if any(FREE in tensor.shape for tensor in spec.inputs):
        return None
    names = [tensor.name for tensor in spec.outputs]
    times = ServiceTime(spec.max_batch_size if spec.batches else 1)
    begin_ns = time.perf_counter_ns()
    for rows in times.sizes:
        inputs = zeros(spec, rows=rows)
        took = []
        for _ in range(_WARM_UP_RUNS):
            run_ns = time.perf_counter_ns()
            try:
                engine.run(inputs, outputs=names)
            except Exception:  # noqa: BLE001 - kernels raise many unrelated types
                return None
            took.append(time.perf_counter_ns() - run_ns)
        times.calibrate(rows=rows, took_ns=sorted(took)[len(took) // 2])
        if time.perf_counter_ns() - begin_ns > _WARM_UP_NS:
            break
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
