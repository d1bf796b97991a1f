"""What a server says of itself and of a model: read from the protocol's messages."""

from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2, service_pb2

from ridgeline.cost import ModelCost
from ridgeline.errors import InvalidInput
from ridgeline.hardware import CPU
from ridgeline.model import FREE, PROVIDER, TensorSpec


@dataclass(frozen=True)
class ServedModel:
    """A model as its server describes it. Shapes are full: they hold the batch axis.

    `max_batch_size` and `cost` are None where the server answers no ModelConfig, or says nothing
    of the cost there. `device` is where it runs, such as "cpu" or "gpu:0". A `stateful` model takes
    no request that is not a step of a sequence.
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    cost: ModelCost | None = None
    device: str = CPU
    stateful: bool = False

    def input_shape(self, tensor: TensorSpec, *, batch_size: int) -> tuple[int, ...]:
        """The shape to send: the batch size on a free first axis, 1 on other free axes.

        Raises InvalidInput where the first axis is not free and another batch size is wanted.
        """
        sizes = [1 if size == FREE else size for size in tensor.shape]
        if tensor.shape and tensor.shape[0] == FREE:
            sizes[0] = batch_size
        elif batch_size != 1 and sizes[:1] != [batch_size]:
            raise InvalidInput(
                f"input {tensor.name!r} of {self.name!r} has the fixed shape {list(tensor.shape)}, "
                f"which cannot hold a batch of {batch_size}"
            )
        return tuple(sizes)

    def check_batch_size(self, batch_size: int) -> None:
        """Raise InvalidInput for a batch that the model cannot take."""
        if batch_size < 1:
            raise InvalidInput(f"a batch size must be at least 1, received {batch_size}")
        if self.max_batch_size and batch_size > self.max_batch_size:
            raise InvalidInput(
                f"model {self.name!r} takes batches of at most {self.max_batch_size} rows, "
                f"received a batch size of {batch_size}"
            )
        for tensor in self.inputs:
            self.input_shape(tensor, batch_size=batch_size)


def served_model(
    metadata: service_pb2.ModelMetadataResponse,
    *,
    version: str,
    config: model_config_pb2.ModelConfig | None,
) -> ServedModel:
    """The model that answers: `version`, or the newest that the metadata names.

    Raises InvalidInput where the metadata makes no sense, such as an unknown datatype.
    """
    if not metadata.inputs or not metadata.outputs:
        raise InvalidInput(f"the server names no inputs or no outputs of model {metadata.name!r}")
    newest = max(metadata.versions, key=_version_order, default="")
    parameters = (
        {name: value.string_value for name, value in config.parameters.items()} if config else {}
    )
    return ServedModel(
        name=metadata.name,
        version=version or newest,
        inputs=tuple(_tensor(tensor) for tensor in metadata.inputs),
        outputs=tuple(_tensor(tensor) for tensor in metadata.outputs),
        max_batch_size=config.max_batch_size if config else None,
        cost=ModelCost.from_parameters(parameters),
        device=_device(config) if config else CPU,
        stateful=bool(config and config.HasField("sequence_batching")),
    )


def _device(config: model_config_pb2.ModelConfig) -> str:
    """Where the model runs: as our server says, else by its instances; of several GPUs the first.

    Triton writes the kinds of instances into every configuration that it answers.
    """
    gpus = [
        group
        for group in config.instance_group
        if group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    ]
    number = next((group.gpus[0] for group in gpus if group.gpus), 0)
    told = config.parameters[PROVIDER].string_value if PROVIDER in config.parameters else ""
    on_gpu = told != CPU if told else bool(gpus)
    return f"gpu:{number}" if on_gpu else CPU


def _tensor(tensor: service_pb2.ModelMetadataResponse.TensorMetadata) -> TensorSpec:
    return TensorSpec(name=tensor.name, datatype=tensor.datatype, shape=tuple(tensor.shape))


def _version_order(version: str) -> tuple[int, str]:
    return (int(version) if version.isdecimal() else -1, version)
