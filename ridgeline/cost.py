"""What one forward pass costs: floating-point operations and bytes, counted from the graph.

The cost travels with the model: in its model card, and as `parameters` of its Triton configuration,
so that a client can read it from any server of the protocol that answers ModelConfig.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from ridgeline.errors import InvalidInput

FLOPS_PER_MULTIPLY_ADD = 2
_PARAMETER_PREFIX = "ridgeline_"


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model per sample (one row of a batch) and per pass.

    Multiply-adds are those of convolutions and matrix products; activations and pooling are left
    out, as in the figures that papers publish. Bytes are those that must cross the memory bus at
    least once: the weights once per batch, inputs and outputs once per sample. Activations between
    layers are not counted, since a fused kernel may keep them in cache: the bound stays a bound.
    """

    multiply_adds_per_sample: int
    parameters: int
    weight_bytes: int
    input_bytes_per_sample: int
    output_bytes_per_sample: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise InvalidInput(f"{name} must not be negative, received {value}")

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
        return {_PARAMETER_PREFIX + name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "ModelCost | None":
        """The cost read back from such parameters; None where they carry none."""
        names = [spec.name for spec in fields(cls)]
        try:
            return cls(**{name: int(parameters[_PARAMETER_PREFIX + name]) for name in names})
        except KeyError:
            return None
        except ValueError as error:
            raise InvalidInput(
                f"the model configuration carries a malformed cost: {error}"
            ) from error
