"""What one forward pass costs: floating-point operations and bytes, counted from the graph.

The cost travels with the model: in its model card, and as `parameters` of its Triton configuration,
so that a client can read it from any server of the protocol that answers ModelConfig.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline.errors import InvalidInput

FLOPS_PER_MULTIPLY_ADD = 2
FP32, FP16, BF16, INT8 = "fp32", "fp16", "bf16", "int8"
PRECISIONS = (FP32, FP16, BF16, INT8)
_PARAMETER_PREFIX = "ridgeline_"
_LAYERS = "layers"


@dataclass(frozen=True)
class LayerWork:
    """What one layer that multiplies must do at the least.

    Multiply-adds per sample, at a precision of PRECISIONS; bytes of the weights that only this
    layer brings (those that an earlier layer read, too, count there), once per batch.
    """

    multiply_adds_per_sample: int
    weight_bytes: int
    precision: str = FP32

    def __post_init__(self) -> None:
        if self.multiply_adds_per_sample < 0 or self.weight_bytes < 0:
            raise InvalidInput(f"the work of a layer must not be negative, received {self}")
        if self.precision not in PRECISIONS:
            raise InvalidInput(
                f"a precision must be one of {', '.join(PRECISIONS)}, received {self.precision!r}"
            )


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model per sample (one row of a batch) and per pass.

    Multiply-adds are those of convolutions and matrix products; activations and pooling are left
    out, as in the figures that papers publish. Bytes are those that must cross the memory bus at
    least once: the weights once per batch, inputs and outputs once per sample. Activations between
    layers are not counted, since a fused kernel may keep them in cache: the bound stays a bound.
    `layers` tells the same layer by layer; it is empty where that is not known.
    """

    multiply_adds_per_sample: int
    parameters: int
    weight_bytes: int
    input_bytes_per_sample: int
    output_bytes_per_sample: int
    layers: tuple[LayerWork, ...] = ()

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} must not be negative, received {getattr(self, name)}")
        told = sum(layer.multiply_adds_per_sample for layer in self.layers)
        if self.layers and told != self.multiply_adds_per_sample:
            raise InvalidInput(
                f"the layers must add up to {self.multiply_adds_per_sample} multiply-adds, "
                f"received {told}"
            )

    @property
    def flops_per_sample(self) -> int:
        """Floating-point operations for one sample; one multiply-add is two."""
        return FLOPS_PER_MULTIPLY_ADD * self.multiply_adds_per_sample

    def flops(self, *, batch_size: int) -> int:
        """Floating-point operations of one pass over `batch_size` samples."""
        return batch_size * self.flops_per_sample

    def bytes_moved(self, *, batch_size: int) -> int:
        """Bytes that one pass over `batch_size` samples moves at the least."""
        per_sample = self.input_bytes_per_sample + self.output_bytes_per_sample
        return self.weight_bytes + batch_size * per_sample

    def to_parameters(self) -> dict[str, str]:
        """The cost as `parameters` of a Triton model configuration."""
        table = {_PARAMETER_PREFIX + name: str(getattr(self, name)) for name in _NUMBERS}
        if self.layers:
            table[_PARAMETER_PREFIX + _LAYERS] = _written(self.layers)
        return table

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "ModelCost | None":
        """The cost read back from such parameters; None where they carry none."""
        try:
            numbers = {name: int(parameters[_PARAMETER_PREFIX + name]) for name in _NUMBERS}
            layers = _read(parameters.get(_PARAMETER_PREFIX + _LAYERS, ""))
            return cls(**numbers, layers=layers)
        except KeyError:
            return None
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"the model configuration carries a malformed cost: {error}"
            ) from error

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "ModelCost":
        """Read back what `dataclasses.asdict` made of one, as JSON.

        Raises TypeError for keys that are unknown or missing, InvalidInput for what makes no sense.
        """
        layers = tuple(LayerWork(**layer) for layer in table.get(_LAYERS, ()))
        return cls(**{**table, _LAYERS: layers})

    def summary(self) -> dict[str, int]:
        """The totals for people and JSON, without the layers."""
        return {name: getattr(self, name) for name in _NUMBERS} | {
            "flops_per_sample": self.flops_per_sample
        }


_NUMBERS = (
    "multiply_adds_per_sample",
    "parameters",
    "weight_bytes",
    "input_bytes_per_sample",
    "output_bytes_per_sample",
)


def _written(layers: Sequence[LayerWork]) -> str:
    """Short, since it travels in every configuration: `416520:246824:fp32 ...`."""
    return " ".join(
        f"{layer.multiply_adds_per_sample}:{layer.weight_bytes}:{layer.precision}"
        for layer in layers
    )


def _read(text: str) -> tuple[LayerWork, ...]:
    parts = (layer.split(":") for layer in text.split())
    return tuple(LayerWork(int(count), int(size), kind) for count, size, kind in parts)
