"""Triton's `reshape`: the shape of a tensor as clients see it, and as the model does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, TensorSpec
from serving.engine import Engine
from serving.request import Tensors


@dataclass(frozen=True)
class Reshape:
    """From one shape to another, both without the batch axis; free axes keep their order.

    Raises InvalidInput where elements between two free axes would not stay between them.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]

    def __post_init__(self) -> None:
        if _products(self.before) != _products(self.after):
            raise InvalidInput(
                f"{self.name!r} cannot be reshaped between {list(self.before)} and "
                f"{list(self.after)}: the elements between free axes differ in number"
            )

    def of(self, array: np.ndarray, *, batches: bool) -> np.ndarray:
        """The array, whose first axis stays where the model `batches`. Raises InvalidInput."""
        batch, shape = array.shape[:batches], array.shape[batches:]
        if len(shape) != len(self.before) or any(
            want not in (FREE, got) for want, got in zip(self.before, shape, strict=True)
        ):
            raise InvalidInput(
                f"{self.name!r} must have the shape {list(self.before)} to be reshaped, "
                f"received {list(shape)}"
            )
        free = [got for want, got in zip(self.before, shape, strict=True) if want == FREE]
        after = [free.pop(0) if size == FREE else size for size in self.after]
        return array.reshape((*batch, *after))


def _products(shape: Sequence[int]) -> list[int]:
    """The numbers of elements before, between and behind the free axes."""
    parts: list[list[int]] = [[]]
    for size in shape:
        if size == FREE:
            parts.append([])
        else:
            parts[-1].append(size)
    return [math.prod(part) for part in parts]


@dataclass(frozen=True)
class Reshapes:
    """What is reshaped of a model: its inputs on their way in, its outputs on their way out."""

    inputs: Mapping[str, Reshape]
    outputs: Mapping[str, Reshape]
    batches: bool

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)

    def to_model(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Inputs as the model wants them."""
        return self._reshaped(tensors, by=self.inputs)

    def to_client(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Outputs as clients see them. Raises InvalidInput where the model gives other shapes."""
        return self._reshaped(tensors, by=self.outputs)

    def _reshaped(self, tensors: Tensors, *, by: Mapping[str, Reshape]) -> dict[str, np.ndarray]:
        return {
            name: by[name].of(array, batches=self.batches) if name in by else array
            for name, array in tensors.items()
        }


def reshapes_of(config: model_config_pb2.ModelConfig | None) -> Reshapes:
    """What a configuration reshapes. Raises InvalidInput where that cannot be."""
    if config is None:
        return Reshapes({}, {}, batches=False)
    return Reshapes(
        {
            tensor.name: Reshape(tensor.name, tuple(tensor.dims), tuple(tensor.reshape.shape))
            for tensor in config.input
            if tensor.HasField("reshape")
        },
        {
            tensor.name: Reshape(tensor.name, tuple(tensor.reshape.shape), tuple(tensor.dims))
            for tensor in config.output
            if tensor.HasField("reshape")
        },
        batches=config.max_batch_size > 0,
    )


class ReshapingEngine:
    """An engine as clients see it. Raises InvalidInput where the graph has other shapes."""

    def __init__(self, engine: Engine, reshapes: Reshapes) -> None:
        self._engine, self._reshapes = engine, reshapes
        batch = (FREE,) if reshapes.batches else ()
        inputs, outputs = reshapes.inputs, reshapes.outputs
        self.inputs = tuple(
            _seen(tensor, batch, inside=by.after, outside=by.before)
            if (by := inputs.get(tensor.name))
            else tensor
            for tensor in engine.inputs
        )
        self.outputs = tuple(
            _seen(tensor, batch, inside=by.before, outside=by.after)
            if (by := outputs.get(tensor.name))
            else tensor
            for tensor in engine.outputs
        )

    def run(
        self, inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        """The named outputs; whatever the engine raises."""
        arrays = self._engine.run(self._reshapes.to_model(inputs), outputs=outputs, alone=alone)
        return list(self._reshapes.to_client(dict(zip(outputs, arrays, strict=True))).values())

    def stop(self) -> None:
        """Stop the engine."""
        self._engine.stop()


def _seen(
    tensor: TensorSpec, batch: tuple[int, ...], *, inside: Sequence[int], outside: Sequence[int]
) -> TensorSpec:
    """A tensor of the graph as clients see it."""
    wanted = (*batch, *inside)
    if len(wanted) != len(tensor.shape) or any(
        graph not in (FREE, size) for size, graph in zip(wanted, tensor.shape, strict=True)
    ):
        raise InvalidInput(
            f"config.pbtxt reshapes {tensor.name!r} to {list(wanted)}, "
            f"but the graph has {list(tensor.shape)}"
        )
    return replace(tensor, shape=(*batch, *outside))
