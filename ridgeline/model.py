"""The contract of a model: what goes in, what comes out, in what batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ridgeline.datatypes import datatype, datatype_of_config
from ridgeline.errors import InvalidInput

PROVIDER = "ridgeline_execution_provider"  # a parameter: what runs a model, if not a CPU as usual
FREE = -1  # the size of an axis that each request may choose


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, protocol datatype ("FP32") and shape per sample.

    The shape leaves out the batch axis of a model that batches; -1 marks a free axis. An input
    that is `optional` need not be sent.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidInput("a tensor needs a name, received an empty one")
        datatype(self.datatype)
        if any(size < FREE for size in self.shape):
            raise InvalidInput(
                f"sizes of {self.name!r} must be at least -1, received {list(self.shape)}"
            )


@dataclass(frozen=True)
class ModelSpec:
    """What a client must send and will receive.

    `max_batch_size` counts rows; 0 says that the model has no batch axis of its own.
    """

    name: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise InvalidInput(f"a model's name must be that of a folder, received {self.name!r}")
        if self.max_batch_size < 0:
            raise InvalidInput(
                f"max_batch_size of {self.name!r} must not be negative, "
                f"received {self.max_batch_size}"
            )
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if not names:
                raise InvalidInput(f"model {self.name!r} needs at least one {kind}")
            if len(set(names)) < len(names):
                raise InvalidInput(
                    f"{kind}s of {self.name!r} must have different names, received {names}"
                )

    @property
    def batches(self) -> bool:
        """Whether the first axis of every tensor is a batch axis that the server may fill."""
        return self.max_batch_size > 0

    def full_shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """The shape as clients see it, with the batch axis in front where the model batches."""
        return (FREE, *tensor.shape) if self.batches else tensor.shape


def spec_of(config: model_config_pb2.ModelConfig) -> ModelSpec:
    """The contract written in a Triton model configuration. Raises InvalidInput."""
    return ModelSpec(
        name=config.name,
        max_batch_size=config.max_batch_size,
        inputs=_tensors(config.input),
        outputs=_tensors(config.output),
    )


def config_of(
    spec: ModelSpec, *, backend: str = "onnxruntime", file: str = "model.onnx"
) -> model_config_pb2.ModelConfig:
    """A Triton configuration for the contract: dynamic batching, newest version."""
    config = model_config_pb2.ModelConfig(
        name=spec.name,
        backend=backend,
        max_batch_size=spec.max_batch_size,
        default_model_filename=file,
        input=[_config_tensor(model_config_pb2.ModelInput, tensor) for tensor in spec.inputs],
        output=[_config_tensor(model_config_pb2.ModelOutput, tensor) for tensor in spec.outputs],
    )
    config.version_policy.latest.num_versions = 1
    if spec.batches:
        config.dynamic_batching.SetInParent()
    return config


def parse_config(text: str, *, source: str) -> model_config_pb2.ModelConfig:
    """Read config.pbtxt with Triton's own schema. Raises InvalidInput with `source` and line."""
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise InvalidInput(f"{source} is not a valid model configuration: {error}") from error


def format_config(config: model_config_pb2.ModelConfig) -> str:
    """The text of config.pbtxt."""
    return text_format.MessageToString(config)


def _tensors(
    tensors: Sequence[model_config_pb2.ModelInput | model_config_pb2.ModelOutput],
) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=tensor.name,
            datatype=datatype_of_config(_data_type_name(tensor.data_type)).name,
            shape=tuple(tensor.dims),
            optional=getattr(tensor, "optional", False),  # an output has no such field
        )
        for tensor in tensors
    )


def _data_type_name(number: int) -> str:
    """The name of a data type; a number of a newer schema has none, and stays a number."""
    known = model_config_pb2.DataType.items()
    return next((name for name, value in known if value == number), str(number))


def _config_tensor(kind: type, tensor: TensorSpec) -> object:
    data_type = model_config_pb2.DataType.Value(datatype(tensor.datatype).config)
    optional = {"optional": True} if tensor.optional else {}
    return kind(name=tensor.name, data_type=data_type, dims=tensor.shape, **optional)
