"""What `sequence_batching` of a configuration asks for, ready to be used.

A model of sequences has more inputs and outputs than its clients see: controls, which tell it where
a sequence begins and ends, and states, which it hands to itself from one request to the next.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.datatypes import datatype, datatype_of_config
from ridgeline.errors import InvalidInput, NotFound, Unsupported
from ridgeline.model import FREE

_NS_PER_US = 1_000
_DEFAULT_IDLE_US = 1_000_000
_FOLDER = "initial_state"  # of a model, with the files of its states
_KINDS = model_config_pb2.ModelSequenceBatching.Control.Kind
_FLAGS = {"fp32_false_true": "FP32", "int32_false_true": "INT32", "bool_false_true": "BOOL"}
_CORRELATION_DATATYPES = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")


@dataclass(frozen=True)
class Flag:
    """An input that tells the model one of two values: `when` is START, END or READY."""

    name: str
    when: str
    datatype: str
    values: tuple[float, float]  # false, true


@dataclass(frozen=True)
class Correlation:
    """An input that tells the model which sequence it is."""

    name: str
    datatype: str


@dataclass(frozen=True)
class State:
    """An output that is the same sequence's next input; `initial` has no batch axis."""

    input_name: str
    output_name: str
    datatype: str
    shape: tuple[int, ...]
    initial: np.ndarray


@dataclass(frozen=True)
class SequencePolicy:
    """How a model's sequences are kept: `most` of them at a time, each till it was idle so long."""

    flags: tuple[Flag, ...]
    correlations: tuple[Correlation, ...]
    states: tuple[State, ...]
    idle_ns: int
    most: int

    @property
    def hidden_inputs(self) -> frozenset[str]:
        """Inputs of the graph that no client sends."""
        flags = {flag.name for flag in self.flags}
        correlations = {correlation.name for correlation in self.correlations}
        return frozenset(flags | correlations | {state.input_name for state in self.states})

    @property
    def hidden_outputs(self) -> frozenset[str]:
        """Outputs of the graph that no client sees."""
        return frozenset(state.output_name for state in self.states)


def sequence_policy(
    config: model_config_pb2.ModelConfig, *, instances: int, directory: Path
) -> SequencePolicy:
    """The policy of a model whose folder is `directory`. Raises InvalidInput, Unsupported."""
    batching = config.sequence_batching
    if batching.iterative_sequence:
        raise Unsupported("the configuration asks for iterative sequences, which are not supported")
    flags: list[Flag] = []
    correlations: list[Correlation] = []
    for tensor in batching.control_input:
        for control in tensor.control:
            kind = _KINDS.Name(control.kind).removeprefix("CONTROL_SEQUENCE_")
            if kind == "CORRID":
                correlations.append(_correlation(tensor.name, control))
            else:
                flags.append(_flag(tensor.name, control, kind=kind))
    names = [flag.name for flag in flags] + [control.name for control in correlations]
    if len(set(names)) < len(names):
        raise InvalidInput(f"control inputs must differ and have one control each, got {names}")
    rows = max(1, config.max_batch_size)
    most = instances * rows
    if batching.HasField("oldest"):
        most = instances * (batching.oldest.max_candidate_sequences or rows)
    idle_us = batching.max_sequence_idle_microseconds or _DEFAULT_IDLE_US
    return SequencePolicy(
        flags=tuple(flags),
        correlations=tuple(correlations),
        states=tuple(_state(state, directory=directory) for state in batching.state),
        idle_ns=idle_us * _NS_PER_US,
        most=most,
    )


def revealed(config: model_config_pb2.ModelConfig) -> model_config_pb2.ModelConfig:
    """The configuration with controls and states among the inputs and outputs, as in the graph."""
    batching = config.sequence_batching
    whole = model_config_pb2.ModelConfig()
    whole.CopyFrom(config)
    if config.input:
        for tensor in batching.control_input:
            for control in tensor.control:
                name = _control_datatype(control)
                data_type = model_config_pb2.DataType.Value(datatype(name).config)
                whole.input.add(name=tensor.name, data_type=data_type, dims=[1])
        for state in batching.state:
            whole.input.add(name=state.input_name, data_type=state.data_type, dims=state.dims)
    if config.output:
        for state in batching.state:
            whole.output.add(name=state.output_name, data_type=state.data_type, dims=state.dims)
    return whole


def concealed(
    config: model_config_pb2.ModelConfig, *, policy: SequencePolicy
) -> model_config_pb2.ModelConfig:
    """The configuration as clients see it."""
    public = model_config_pb2.ModelConfig()
    public.CopyFrom(config)
    inputs = [tensor for tensor in config.input if tensor.name not in policy.hidden_inputs]
    outputs = [tensor for tensor in config.output if tensor.name not in policy.hidden_outputs]
    public.ClearField("input")
    public.ClearField("output")
    public.input.extend(inputs)
    public.output.extend(outputs)
    return public


def _control_datatype(control: model_config_pb2.ModelSequenceBatching.Control) -> str:
    for field, name in _FLAGS.items():
        if getattr(control, field):
            return name
    return _config_datatype(control.data_type)


def _config_datatype(number: int) -> str:
    return datatype_of_config(model_config_pb2.DataType.Name(number)).name


def _flag(name: str, control: model_config_pb2.ModelSequenceBatching.Control, *, kind: str) -> Flag:
    given = [field for field in _FLAGS if getattr(control, field)]
    if len(given) != 1 or len(getattr(control, given[0])) != 2:
        raise InvalidInput(
            f"the control {kind} of {name!r} needs two values in one of {', '.join(_FLAGS)}"
        )
    false, true = getattr(control, given[0])
    return Flag(name, kind, _FLAGS[given[0]], (false, true))


def _correlation(name: str, control: model_config_pb2.ModelSequenceBatching.Control) -> Correlation:
    kind = _control_datatype(control)
    if kind not in _CORRELATION_DATATYPES:
        raise InvalidInput(
            f"the correlation id of {name!r} must be {', '.join(_CORRELATION_DATATYPES)}, "
            f"received {kind}"
        )
    return Correlation(name, kind)


def _state(state: model_config_pb2.ModelSequenceBatching.State, *, directory: Path) -> State:
    kind = datatype(_config_datatype(state.data_type))
    if len(state.initial_state) > 1:
        raise InvalidInput(f"the state {state.input_name!r} has more than one initial state")
    shape = tuple(1 if size == FREE else size for size in state.dims)
    initial: np.ndarray = np.zeros(shape, kind.numpy)
    if kind.name == "BYTES":
        initial = np.full(shape, b"", np.object_)
    for given in state.initial_state:
        if _config_datatype(given.data_type) != kind.name:
            raise InvalidInput(f"the initial state of {state.input_name!r} is not {kind.name}")
        shape = tuple(given.dims) or shape
        initial = np.resize(initial, shape) if initial.size else np.zeros(shape, kind.numpy)
        if given.data_file:
            path = directory / _FOLDER / given.data_file
            initial = _from_file(path, shape=shape, dtype=kind.numpy)
    return State(state.input_name, state.output_name, kind.name, tuple(state.dims), initial)


def _from_file(path: Path, *, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype == np.object_:
        raise Unsupported(f"an initial state of texts cannot be read from {path}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"the initial state cannot be read: {error}") from error
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise InvalidInput(f"{path} holds {len(data)} bytes, {dtype} {list(shape)} takes others")
    return np.frombuffer(data, dtype).reshape(shape)
