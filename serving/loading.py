"""From a folder of the repository to a version that answers: configuration, session, warm-up."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.cost import ModelCost
from ridgeline.datatypes import datatype
from ridgeline.errors import InvalidInput, NotFound, Unsupported
from ridgeline.model import FREE, ModelSpec, TensorSpec, config_of, spec_of
from ridgeline.repository import (
    MODEL_FILE,
    RepositoryModel,
    check_digests,
    read_card,
    read_labels,
)
from serving.engine import EngineSettings, OnnxEngine, resolved_provider
from serving.policy import BatchPolicy, batch_policy
from serving.service_time import ServiceTime
from serving.settings import ServeSettings

logger = logging.getLogger(__name__)

# Parts of a configuration that change what a model answers, and that this server does not act on.
_UNSUPPORTED_PARTS = ("sequence_batching", "ensemble_scheduling", "batch_input", "batch_output")
_WARM_UP_RUNS = 3  # per batch size: the median is not the first, which allocates
_WARM_UP_NS = 3_000_000_000
_FRONT_END_NS = 25_000  # what the event loop takes for a request, about
_BACKENDS = ("", "onnxruntime")
_PLATFORMS = ("", "onnxruntime_onnx")


@dataclass(frozen=True)
class LoadedVersion:
    """A model version ready to run: its complete configuration and contract, engine and cost."""

    config: model_config_pb2.ModelConfig
    spec: ModelSpec
    engine: OnnxEngine
    cost: ModelCost | None
    labels: Mapping[str, tuple[str, ...]]
    instances: int
    policy: BatchPolicy
    service_time: ServiceTime | None


def versions_to_serve(model: RepositoryModel) -> tuple[int, ...]:
    """The versions that the configuration's version policy picks; Triton's default is the newest.

    Raises NotFound where the folder holds no version, or not the one that the policy names.
    """
    if not model.versions:
        raise NotFound(
            f"{model.directory} holds no version; expected {model.directory}/1/{MODEL_FILE}"
        )
    config = model.read_config() or model_config_pb2.ModelConfig()
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return model.versions
        case "specific":
            if not policy.specific.versions:
                raise InvalidInput(f"the version policy of {model.name!r} names no version")
            if missing := sorted(set(policy.specific.versions) - set(model.versions)):
                raise NotFound(
                    f"the version policy of {model.name!r} names versions {missing}, "
                    f"but {model.directory} holds {list(model.versions)}"
                )
            return tuple(sorted(policy.specific.versions))
        case "latest":
            return model.versions[-max(1, policy.latest.num_versions) :]
        case _:
            return model.versions[-1:]


def load_version(
    model: RepositoryModel,
    *,
    version: int,
    settings: ServeSettings,
    on_engine: Callable[[OnnxEngine], None],
) -> LoadedVersion:
    """Load one version and run it once per batch size that decides its buffers. Blocks.

    `on_engine` receives the engine before its first run, so that a long one can be stopped. Raises
    a RidgelineError that says why the version cannot be served.
    """
    given = model.read_config()
    _refuse_unsupported(given)
    directory = model.version_directory(version)
    card = read_card(directory)
    if card:
        check_digests(directory, card=card)
    path = directory / ((given and given.default_model_filename) or MODEL_FILE)
    if not path.is_file():
        raise NotFound(f"version {version} of {model.name!r} has no file {path}")
    cores = len(os.sched_getaffinity(0))
    engine_settings, instances = _engine_settings(given, cores=cores, settings=settings)
    engine = OnnxEngine(path, settings=engine_settings)
    on_engine(engine)
    config = _completed(given, name=model.name, engine=engine, settings=settings)
    if not _batch_axis_holds(config, engine=engine):
        config = _without_batches(config, given=given, engine=engine)
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
    return LoadedVersion(
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
    if config.backend not in _BACKENDS or config.platform not in _PLATFORMS:
        raise Unsupported(
            f"expected an ONNX model (backend 'onnxruntime'), "
            f"the configuration asks for {config.backend or config.platform!r}"
        )
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


def _completed(
    config: model_config_pb2.ModelConfig | None,
    *,
    name: str,
    engine: OnnxEngine,
    settings: ServeSettings,
) -> model_config_pb2.ModelConfig:
    """The configuration with what it leaves out taken from the graph; checked where it does not."""
    if config is None or not (config.input or config.output or config.max_batch_size):
        return _merged(_spec_of_graph(name, engine=engine, settings=settings), given=config)
    batches = config.max_batch_size > 0
    graph_spec = _graph_spec(name, max_batch_size=config.max_batch_size, engine=engine)
    config = _merged(graph_spec, given=config)
    spec = spec_of(config)
    _check_tensors(spec.inputs, engine.inputs, kind="input", batches=batches)
    _check_tensors(spec.outputs, engine.outputs, kind="output", batches=batches)
    if missing := {tensor.name for tensor in engine.inputs} - {
        tensor.name for tensor in spec.inputs
    }:
        raise InvalidInput(
            f"the graph needs the inputs {sorted(missing)}, which config.pbtxt leaves out"
        )
    return config


def _merged(
    spec: ModelSpec, *, given: model_config_pb2.ModelConfig | None
) -> model_config_pb2.ModelConfig:
    """A configuration of `spec`, but for what the given one says: its lists replace, not extend."""
    completed = config_of(spec)
    if given is not None:
        for field, _ in given.ListFields():
            if field.is_repeated:
                completed.ClearField(field.name)
        completed.MergeFrom(given)
    return completed


def _spec_of_graph(name: str, *, engine: OnnxEngine, settings: ServeSettings) -> ModelSpec:
    """The contract of a model without a configuration: as Triton, a free first axis is a batch."""
    tensors = (*engine.inputs, *engine.outputs)
    batches = all(tensor.shape and tensor.shape[0] == FREE for tensor in tensors)
    max_batch_size = settings.default_max_batch_size if batches else 0
    return _graph_spec(name, max_batch_size=max_batch_size, engine=engine)


def _graph_spec(name: str, *, max_batch_size: int, engine: OnnxEngine) -> ModelSpec:
    first = 1 if max_batch_size else 0
    return ModelSpec(
        name=name,
        max_batch_size=max_batch_size,
        inputs=tuple(replace(tensor, shape=tensor.shape[first:]) for tensor in engine.inputs),
        outputs=tuple(replace(tensor, shape=tensor.shape[first:]) for tensor in engine.outputs),
    )


def _check_tensors(
    tensors: Sequence[TensorSpec], graph: Sequence[TensorSpec], *, kind: str, batches: bool
) -> None:
    by_name = {tensor.name: tensor for tensor in graph}
    for tensor in tensors:
        found = by_name.get(tensor.name)
        if found is None:
            raise InvalidInput(
                f"config.pbtxt names the {kind} {tensor.name!r}, "
                f"but the graph has {sorted(by_name)}"
            )
        shape = (FREE, *tensor.shape) if batches else tensor.shape
        if tensor.datatype != found.datatype or not _compatible(shape, found.shape):
            raise InvalidInput(
                f"config.pbtxt gives the {kind} {tensor.name!r} as {tensor.datatype} "
                f"{list(shape)}, but the graph has {found.datatype} {list(found.shape)}"
            )


def _compatible(configured: Sequence[int], graph: Sequence[int]) -> bool:
    """Whether every shape that the configuration admits, the graph admits too."""
    return len(configured) == len(graph) and all(
        inside in (FREE, outside) for outside, inside in zip(configured, graph, strict=True)
    )


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


def _without_batches(
    config: model_config_pb2.ModelConfig,
    *,
    given: model_config_pb2.ModelConfig | None,
    engine: OnnxEngine,
) -> model_config_pb2.ModelConfig:
    """The configuration of a model whose free first axis is no batch axis: served unbatched.

    Raises InvalidInput where its config.pbtxt says otherwise.
    """
    if given is not None and given.max_batch_size:
        raise InvalidInput(
            f"max_batch_size is {given.max_batch_size}, but the graph does not give "
            "one row of every output for each row of its inputs"
        )
    return _merged(_graph_spec(config.name, max_batch_size=0, engine=engine), given=given)


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
