"""Models that ONNX Runtime runs: from a file to an engine that is warm, and how long it takes."""

import functools
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from ridgeline.cost import ModelCost
from ridgeline.errors import NotFound, Overloaded, Unavailable, Unsupported
from ridgeline.model import PROVIDER, ModelSpec, spec_of
from ridgeline.repository import MODEL_FILE, ModelCard, check_digests, read_card, read_labels
from serving.backends.engine_choice import Choice, Trial, chosen_engine, wished_engine
from serving.backends.onnx_contract import completed, without_batches
from serving.backends.warm_up import batch_axis_holds, measured_times, zeros
from serving.batcher import AT_ONCE_NS, Batcher
from serving.engine import Engine, EngineSettings, built_nicely
from serving.graph_cache import CachedGraph, GraphCache
from serving.onnx_engine import OnnxEngine, resolved_provider
from serving.openvino_engine import OpenVinoEngine
from serving.policy import BatchPolicy, batch_policy
from serving.reshape import Reshapes, ReshapingEngine, reshapes_of
from serving.scheduler import BatchScheduler
from serving.sequence_policy import SequencePolicy, concealed, revealed, sequence_policy
from serving.sequences import SequenceScheduler
from serving.service_time import ServiceTime
from serving.settings import ServeSettings
from serving.statistics import ModelStatistics
from serving.version import LoadedVersion, Loading, Started, Surroundings
from serving.widened_engine import widened

logger = logging.getLogger(__name__)

# Parts of a configuration that change what a model answers, and that this backend does not act on.
_UNSUPPORTED_PARTS = ("ensemble_scheduling", "batch_input", "batch_output")
_FRONT_END_NS = 25_000  # what the event loop takes for a request, about
_AHEAD = 1  # batches that wait in the engine's threads


@dataclass(frozen=True, kw_only=True)
class OnnxVersion(LoadedVersion):
    """A version that ONNX Runtime runs in this process, batched.

    `engine_spec` has all inputs and outputs of the graph, also those of `sequences` that no client
    sees.
    """

    engine: Engine
    engine_spec: ModelSpec
    sequences: SequencePolicy | None
    instances: int
    policy: BatchPolicy
    service_time: ServiceTime | None

    @property
    def platform(self) -> str:
        """As Triton calls it."""
        return "onnxruntime_onnx"

    def start(self, *, version: str, statistics: ModelStatistics, within: Surroundings) -> Started:
        """Put a batcher before the engine."""
        precise = within.settings.status_codes == "precise"
        refusal = Overloaded if precise else Unavailable
        batcher = Batcher(
            self.engine,
            spec=self.engine_spec,
            statistics=statistics,
            instances=self.instances,
            policy=self.policy,
            service_time=self.service_time,
            budget=within.budget,
            ahead=_AHEAD,
            # A graph whose cost cannot be counted may loop for as long as its data say.
            at_once_ns=AT_ONCE_NS if self.cost and self.cost.multiply_adds_per_sample else 0,
            bind=functools.partial(self.engine.bound, self.engine_spec)
            if isinstance(self.engine, OnnxEngine)
            else None,
            refusal=refusal,
        )
        scheduler = BatchScheduler(
            batcher,
            name=self.spec.name,
            version=version,
            spec=self.engine_spec,
            statistics=statistics,
        )
        if self.sequences is None:
            return Started(scheduler, batcher)
        sequences = SequenceScheduler(
            scheduler,
            spec=self.spec,
            policy=self.sequences,
            statistics=statistics,
            max_queue_size=within.settings.max_queue_size,
            refusal=refusal,
        )
        return Started(sequences)


def load(loading: Loading) -> OnnxVersion:
    """Load one version and run it once per batch size that decides its buffers. Blocks.

    Raises a RidgelineError that says why the version cannot be served.
    """
    given, settings, model = loading.given, loading.settings, loading.model
    _refuse_unsupported(given)
    in_sequences = given is not None and given.HasField("sequence_batching")
    if given is not None and in_sequences:
        given = revealed(given)
    path, card = _checked_files(loading)
    runs = _chosen(loading, given=given, path=path, card=card)
    config, spec = runs.config, runs.spec
    cost = card.cost if card and card.cost else _counted_cost(path, batches=spec.batches)
    if cost:
        for key, value in cost.to_parameters().items():
            config.parameters[key].string_value = value
    sequences = None
    if in_sequences:
        sequences = sequence_policy(config, instances=runs.instances, directory=model.directory)
        config = concealed(config, policy=sequences)
    return OnnxVersion(
        config=config,
        spec=spec_of(config),
        engine=runs.engine,
        engine_spec=spec,
        sequences=sequences,
        cost=cost,
        labels=read_labels(model.directory, config),
        instances=runs.instances,
        policy=batch_policy(
            config,
            max_queue_size=settings.max_queue_size,
            max_queue_bytes=settings.max_queue_bytes,
            patience_s=settings.patience_seconds,
        ),
        service_time=runs.service_time,
    )


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """How a model runs: the engine that was chosen, and what was learned while it warmed up."""

    engine: Engine
    instances: int
    config: model_config_pb2.ModelConfig
    spec: ModelSpec
    service_time: ServiceTime | None


def _chosen(
    loading: Loading,
    *,
    given: model_config_pb2.ModelConfig | None,
    path: Path,
    card: ModelCard | None,
) -> _Runs:
    """Build the engine, complete the configuration by what it says, and try others."""
    settings = loading.settings
    wish, reshapes = _wish(given, settings=settings), reshapes_of(given)
    engine_settings, instances = _engine_settings(given, cores=_cores(), settings=settings)
    build = functools.partial(
        _engine,
        path,
        reshapes=reshapes,
        cache=_cached_graph(path, engine_settings, card=card, settings=settings),
    )
    engine: Engine = built_nicely(functools.partial(build, settings=engine_settings))
    loading.on_engine(engine)
    config = completed(given, name=loading.model.name, engine=engine, settings=settings)
    if not batch_axis_holds(config, engine=engine):
        config = without_batches(config, given=given, engine=engine)
    provider = engine_settings.execution_provider
    if provider != "cpu" or model_config_pb2.ModelInstanceGroup.KIND_GPU in _kinds(given):
        config.parameters[PROVIDER].string_value = provider
    spec = spec_of(config)
    choice = Choice(engine, measured_times(spec, engine=engine))
    trial = Trial(path, spec, choice, engine_settings, instances, loading.on_engine)
    choice = chosen_engine(trial, wish=wish)
    for key, value in choice.parameters.items():
        config.parameters[key].string_value = value
    engine, service_time = choice.engine, choice.service_time
    chosen_by_us = not settings.engine_threads and not (given and given.instance_group)
    if engine_settings.threads == 1 and service_time and chosen_by_us:
        # More instances than it takes to keep up with one event loop would only cut batches short.
        instances = max(1, min(instances, round(service_time.row_ns / _FRONT_END_NS)))
        engine = _widened(engine, trial=trial, build=build)
    return _Runs(
        engine=engine, instances=instances, config=config, spec=spec, service_time=service_time
    )


def _wish(given: model_config_pb2.ModelConfig | None, *, settings: ServeSettings) -> str:
    """The engine that is asked for, where it can run the model."""
    if reshapes_of(given) or (given and any(tensor.optional for tensor in given.input)):
        return "onnxruntime"  # the other one knows neither
    return wished_engine(given, settings=settings)


def _engine(
    path: Path, *, settings: EngineSettings, cache: CachedGraph | None, reshapes: Reshapes
) -> Engine:
    engine = OnnxEngine(path, settings=settings, cache=cache)
    return ReshapingEngine(engine, reshapes) if reshapes else engine


def _widened(engine: Engine, *, trial: Trial, build: functools.partial[Engine]) -> Engine:
    """The engine, with another one of all cores for the batch that comes alone, if it may pay."""
    cores = _cores()
    if cores == 1:
        return engine

    def build_wide(spins: bool) -> Engine:
        if isinstance(engine, OpenVinoEngine):
            return trial.openvino(threads=cores, streams=1)
        return build(settings=replace(trial.settings, threads=cores, spins=spins))

    inputs = zeros(trial.spec, rows=1)
    return widened(engine, inputs=inputs, build_wide=build_wide, on_engine=trial.on_engine)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _checked_files(loading: Loading) -> tuple[Path, ModelCard | None]:
    """The model file and the card of a version, whose digests hold."""
    model, given = loading.model, loading.given
    directory = model.version_directory(loading.version)
    card = read_card(directory)
    if card:
        check_digests(directory, card=card)
    path = directory / ((given and given.default_model_filename) or MODEL_FILE)
    if not path.is_file():
        raise NotFound(f"version {loading.version} of {model.name!r} has no file {path}")
    return path, card


def _cached_graph(
    path: Path,
    engine_settings: EngineSettings,
    *,
    card: ModelCard | None,
    settings: ServeSettings,
) -> CachedGraph | None:
    """Where the optimised graph is kept, if it is to be; other providers compile their own."""
    if settings.graph_cache is None or engine_settings.execution_provider != "cpu":
        return None
    cache = GraphCache(settings.graph_cache, max_bytes=settings.graph_cache_bytes)
    return cache.graph_of(path, digests=card.sha256 if card else {})


def _refuse_unsupported(config: model_config_pb2.ModelConfig | None) -> None:
    if config is None:
        return
    for part in _UNSUPPORTED_PARTS:
        field = config.DESCRIPTOR.fields_by_name[part]
        if getattr(config, part) if field.is_repeated else config.HasField(part):
            raise Unsupported(
                f"the configuration uses {part!r}, which this server does not support"
            )


def _engine_settings(
    config: model_config_pb2.ModelConfig | None, *, cores: int, settings: ServeSettings
) -> tuple[EngineSettings, int]:
    """How the engine runs, and how many batches at once.

    Where nothing is said, a CPU runs one batch a core, with a thread each: more samples a second
    than one batch of several threads. `widen` cares for the batch that comes alone.
    """
    groups = list(config.instance_group) if config else []
    kinds = _kinds(config)
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


def _kinds(config: model_config_pb2.ModelConfig | None) -> set[int]:
    """Where the configuration wants instances: KIND_CPU, KIND_GPU or KIND_AUTO."""
    return {group.kind for group in config.instance_group} if config else set()


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
