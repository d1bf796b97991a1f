"""Models that ONNX Runtime runs: from a file to an engine that is warm, and how long it takes."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.cost import ModelCost
from ridgeline.datatypes import datatype
from ridgeline.errors import NotFound, Overloaded, Unavailable, Unsupported
from ridgeline.model import FREE, ModelSpec, TensorSpec, spec_of
from ridgeline.repository import MODEL_FILE, check_digests, read_card, read_labels
from serving.backends.onnx_contract import completed, without_batches
from serving.batcher import AT_ONCE_NS, Batcher
from serving.engine import EngineSettings, OnnxEngine, resolved_provider
from serving.policy import BatchPolicy, batch_policy
from serving.scheduler import BatchScheduler
from serving.service_time import ServiceTime
from serving.settings import ServeSettings
from serving.statistics import ModelStatistics
from serving.version import LoadedVersion, Loading, Started, Surroundings

logger = logging.getLogger(__name__)

# Parts of a configuration that change what a model answers, and that this backend does not act on.
_UNSUPPORTED_PARTS = ("sequence_batching", "ensemble_scheduling", "batch_input", "batch_output")
_WARM_UP_RUNS = 3  # per batch size: the median is not the first, which allocates
_WARM_UP_NS = 3_000_000_000
_FRONT_END_NS = 25_000  # what the event loop takes for a request, about
_AHEAD = 1  # full batches that wait in the engine's threads


@dataclass(frozen=True, kw_only=True)
class OnnxVersion(LoadedVersion):
    """A version that ONNX Runtime runs in this process, batched."""

    engine: OnnxEngine
    instances: int
    policy: BatchPolicy
    service_time: ServiceTime | None

    @property
    def platform(self) -> str:
        """As Triton calls it."""
        return "onnxruntime_onnx"

    def start(self, *, version: str, statistics: ModelStatistics, within: Surroundings) -> Started:
        """Put a batcher before the engine."""
        exhausted = within.settings.overload_status == "exhausted"
        batcher = Batcher(
            self.engine,
            spec=self.spec,
            statistics=statistics,
            instances=self.instances,
            policy=self.policy,
            service_time=self.service_time,
            budget=within.budget,
            ahead=_AHEAD,
            # A graph whose cost cannot be counted may loop for as long as its data say.
            at_once_ns=AT_ONCE_NS if self.cost and self.cost.multiply_adds_per_sample else 0,
            refusal=Overloaded if exhausted else Unavailable,
        )
        scheduler = BatchScheduler(
            batcher, name=self.spec.name, version=version, spec=self.spec, statistics=statistics
        )
        return Started(scheduler, batcher)


def load(loading: Loading) -> OnnxVersion:
    """Load one version and run it once per batch size that decides its buffers. Blocks.

    Raises a RidgelineError that says why the version cannot be served.
    """
    given, settings, model = loading.given, loading.settings, loading.model
    _refuse_unsupported(given)
    directory = model.version_directory(loading.version)
    card = read_card(directory)
    if card:
        check_digests(directory, card=card)
    path = directory / ((given and given.default_model_filename) or MODEL_FILE)
    if not path.is_file():
        raise NotFound(f"version {loading.version} of {model.name!r} has no file {path}")
    cores = len(os.sched_getaffinity(0))
    engine_settings, instances = _engine_settings(given, cores=cores, settings=settings)
    engine = OnnxEngine(path, settings=engine_settings)
    loading.on_engine(engine)
    config = completed(given, name=model.name, engine=engine, settings=settings)
    if not _batch_axis_holds(config, engine=engine):
        config = without_batches(config, given=given, engine=engine)
    spec = spec_of(config)
    service_time = _measured_times(spec, engine=engine)
    chosen_by_us = not settings.engine_threads and not (given and given.instance_group)
    if engine_settings.threads == 1 and service_time and chosen_by_us:
        # More instances than it takes to keep up with one event loop would only cut batches short.
        instances = max(1, min(instances, round(service_time.row_ns / _FRONT_END_NS)))
        engine.widen(_zeros(spec, rows=1), threads=cores)
    cost = card.cost if card and card.cost else _counted_cost(path, batches=spec.batches)
    if cost:
        for key, value in cost.to_parameters().items():
            config.parameters[key].string_value = value
    return OnnxVersion(
        config=config,
        spec=spec,
        engine=engine,
        cost=cost,
        labels=read_labels(model.directory, config),
        instances=instances,
        policy=batch_policy(
            config,
            max_queue_size=settings.max_queue_size,
            max_queue_bytes=settings.max_queue_bytes,
            patience_s=settings.patience_seconds,
        ),
        service_time=service_time,
    )


def _refuse_unsupported(config: model_config_pb2.ModelConfig | None) -> None:
    if config is None:
        return
    for part in _UNSUPPORTED_PARTS:
        field = config.DESCRIPTOR.fields_by_name[part]
        if getattr(config, part) if field.is_repeated else config.HasField(part):
            raise Unsupported(
                f"the configuration uses {part!r}, which this server does not support"
            )
    for tensor in (*config.input, *config.output):
        if tensor.HasField("reshape"):
            raise Unsupported(f"the configuration reshapes {tensor.name!r}, which is not supported")


def _engine_settings(
    config: model_config_pb2.ModelConfig | None, *, cores: int, settings: ServeSettings
) -> tuple[EngineSettings, int]:
    """How the engine runs, and how many batches at once.

    Where nothing is said, a CPU runs one batch a core, with a thread each: more samples a second
    than one batch of several threads. `widen` cares for the batch that comes alone.
    """
    groups = list(config.instance_group) if config else []
    kinds = {group.kind for group in groups}
    provider = settings.execution_provider
    if provider == "auto" and model_config_pb2.ModelInstanceGroup.KIND_GPU in kinds:
        provider = "cuda"
    if kinds == {model_config_pb2.ModelInstanceGroup.KIND_CPU}:
        provider = "cpu"
    provider = resolved_provider(provider)
    instances = sum(max(1, group.count) for group in groups)
    if not instances:
        instances = cores if provider == "cpu" and not settings.engine_threads else 1
    threads = settings.engine_threads or max(1, cores // instances)
    return EngineSettings(threads=threads, execution_provider=provider), instances


def _batch_axis_holds(config: model_config_pb2.ModelConfig, *, engine: OnnxEngine) -> bool:
    """Run the model on zeros, as warm-up and to see that its outputs have a row per input row.

    A model that refuses zeros (an index out of range, say) is served all the same, and says so.
    """
    spec = spec_of(config)
    names = [tensor.name for tensor in spec.outputs]
    for rows in (2, config.max_batch_size) if spec.batches else (0,):
        rows = min(rows, config.max_batch_size)
        try:
            outputs = engine.run(_zeros(spec, rows=rows), outputs=names)
        except Exception as error:  # noqa: BLE001 - kernels raise many unrelated types
            logger.warning("model %r could not be warmed up with zeros: %s", spec.name, error)
            return True
        if spec.batches and any(not array.ndim or array.shape[0] != rows for array in outputs):
            shapes = [list(array.shape) for array in outputs]
            logger.warning("model %r gave %s for %d rows", spec.name, shapes, rows)
            return False
    return True


def _measured_times(spec: ModelSpec, *, engine: OnnxEngine) -> ServiceTime | None:
    """Run every batch size that will be used, on zeros, and note its time; the larger ones only
    within some seconds. None where shapes are free or zeros are refused: the first requests tell.
    """
    if any(FREE in tensor.shape for tensor in spec.inputs):
        return None
    names = [tensor.name for tensor in spec.outputs]
    times = ServiceTime(spec.max_batch_size if spec.batches else 1)
    begin_ns = time.perf_counter_ns()
    for rows in times.sizes:
        inputs = _zeros(spec, rows=rows)
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


def _zeros(spec: ModelSpec, *, rows: int) -> dict[str, np.ndarray]:
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


def _counted_cost(path: Path, *, batches: bool) -> ModelCost | None:
    """The cost of a model that came without a card; None where the graph leaves it open.

    ONNX Runtime has loaded the model: what onnx makes of it decides about the cost alone.
    """
    from ridgeline import graph  # onnx costs memory that a server of published models need not pay

    try:
        return graph.cost_of(graph.load(path), batches=batches)
    except Exception as error:  # noqa: BLE001 - onnx raises many unrelated types
        logger.info("the cost of %s is unknown: %s", path, error)
        return None
