"""How fast a machine could be at best: the floor of a pass, and an estimate that is no bound.

The floor holds only what must happen, so that no measurement may lie below it:

    simple = max(FLOPs / peak, bytes / bandwidth)                        over the whole pass
    floor  = max(simple, sum over layers of max(FLOPs / peak, weight bytes / bandwidth))

The second sum holds for engines that run one layer after the other, as all that we know do on a
CPU: the weights of a layer are read while it runs. The *roofline estimate* also charges every
operator for the activations that it reads and writes. A fused kernel may keep them in cache, so
reality can undercut it: it predicts (`ridgeline predict`), it does not bound.

Williams, Waterman, Patterson: Roofline, Communications of the ACM 52(4), 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ridgeline.cost import FLOPS_PER_MULTIPLY_ADD, ModelCost
from ridgeline.roof import Roof

if TYPE_CHECKING:
    from ridgeline.graph_profile import Operator

_NS_PER_S = 1e9


@dataclass(frozen=True)
class Floor:
    """The least time of one pass, in ns: `ns`, and the two parts of the simple bound."""

    ns: float
    flops_ns: float
    bytes_ns: float

    @property
    def simple_ns(self) -> float:
        """max(FLOPs / peak, bytes / bandwidth), which knows no layers."""
        return max(self.flops_ns, self.bytes_ns)

    @property
    def bound_by(self) -> str:
        """What decides the simple bound: "arithmetic" or "memory"."""
        return "arithmetic" if self.flops_ns >= self.bytes_ns else "memory"


def floor(cost: ModelCost, *, batch_size: int, hardware: Roof) -> Floor:
    """The floor of one pass over `batch_size` samples on that processor.

    Where the cost tells no layers, all multiply-adds are taken to be fp32, and the floor is the
    simple bound.
    """
    moved = cost.bytes_moved(batch_size=batch_size)
    # Weights are read anew in each pass: how fast depends on what all of them together fit into.
    bandwidth = hardware.bandwidth_bytes_per_s(working_set_bytes=moved)
    if not cost.layers:
        flops_s = cost.flops(batch_size=batch_size) / hardware.peak_flops_per_s
        return _floor(flops_s=flops_s, bytes_s=moved / bandwidth, layers_s=0.0)
    times_s = [
        FLOPS_PER_MULTIPLY_ADD
        * batch_size
        * layer.multiply_adds_per_sample
        / hardware.peak_of(layer.precision)
        for layer in cost.layers
    ]
    layers_s = sum(
        max(time_s, layer.weight_bytes / bandwidth)
        for time_s, layer in zip(times_s, cost.layers, strict=True)
    )
    return _floor(flops_s=sum(times_s), bytes_s=moved / bandwidth, layers_s=layers_s)


def _floor(*, flops_s: float, bytes_s: float, layers_s: float) -> Floor:
    return Floor(
        ns=_NS_PER_S * max(flops_s, bytes_s, layers_s),
        flops_ns=_NS_PER_S * flops_s,
        bytes_ns=_NS_PER_S * bytes_s,
    )


def operator_ns(operator: "Operator", *, pass_bytes: int, hardware: Roof) -> float:
    """The roofline estimate of one operator: max(FLOPs / peak, all its bytes / bandwidth).

    `pass_bytes` is what the whole pass moves, which decides whether weights stay in a cache.
    """
    near = hardware.bandwidth_bytes_per_s(working_set_bytes=operator.activation_bytes)
    far = hardware.bandwidth_bytes_per_s(working_set_bytes=pass_bytes)
    moved_s = operator.activation_bytes / near + operator.weight_bytes / far
    return _NS_PER_S * max(operator.flops / hardware.peak_of(operator.precision), moved_s)


def estimate_ns(operators: Sequence["Operator"], *, hardware: Roof) -> float:
    """The roofline estimate of a pass: the sum over its operators."""
    pass_bytes = sum(operator.weight_bytes for operator in operators)
    return sum(operator_ns(each, pass_bytes=pass_bytes, hardware=hardware) for each in operators)
