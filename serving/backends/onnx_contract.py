"""The configuration of an ONNX model: completed from its graph, and checked against it."""

from collections.abc import Sequence
from dataclasses import replace

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, ModelSpec, TensorSpec, config_of, spec_of
from serving.engine import Engine
from serving.settings import ServeSettings


def completed(
    config: model_config_pb2.ModelConfig | None,
    *,
    name: str,
    engine: Engine,
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
    if missing := {tensor.name for tensor in engine.inputs if not tensor.optional} - {
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


def _spec_of_graph(name: str, *, engine: Engine, settings: ServeSettings) -> ModelSpec:
    """The contract of a model without a configuration: as Triton, a free first axis is a batch."""
    tensors = (*_needed(engine), *engine.outputs)
    batches = all(tensor.shape and tensor.shape[0] == FREE for tensor in tensors)
    max_batch_size = settings.default_max_batch_size if batches else 0
    return _graph_spec(name, max_batch_size=max_batch_size, engine=engine)


def _graph_spec(name: str, *, max_batch_size: int, engine: Engine) -> ModelSpec:
    first = 1 if max_batch_size else 0
    return ModelSpec(
        name=name,
        max_batch_size=max_batch_size,
        inputs=tuple(replace(tensor, shape=tensor.shape[first:]) for tensor in _needed(engine)),
        outputs=tuple(replace(tensor, shape=tensor.shape[first:]) for tensor in engine.outputs),
    )


def _needed(engine: Engine) -> list[TensorSpec]:
    """The inputs that a graph cannot do without: others are there where config.pbtxt says so."""
    return [tensor for tensor in engine.inputs if not tensor.optional]


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


def without_batches(
    config: model_config_pb2.ModelConfig,
    *,
    given: model_config_pb2.ModelConfig | None,
    engine: Engine,
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
