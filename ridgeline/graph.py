"""What a forward pass costs, counted operator by operator from an ONNX graph.

Counted are the operators that multiply and add: convolutions, matrix products and recurrent cells.
Their multiply-adds follow from the shapes that ONNX's own shape inference finds. Activations,
normalisation and pooling are left out, as in the figures that papers publish. A graph that may
multiply where this cannot be counted (in the body of a loop, in an operator that ONNX does not
define) has no cost, rather than one that is too low.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from ridgeline.cost import BF16, FP16, FP32, INT8, LayerWork, ModelCost
from ridgeline.errors import CorruptData, InvalidInput
from ridgeline.graph_shapes import (
    Sizes,
    bytes_of,
    elements_of,
    real_inputs,
    shapes_of,
    sized,
    stored_bytes,
    weights_of,
)
from ridgeline.multiply_adds import COUNTS

_PICKS_ROWS = frozenset({"Gather", "GatherND", "GatherElements"})
_PRECISIONS = {
    TensorProto.FLOAT16: FP16,
    TensorProto.BFLOAT16: BF16,
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8), INT8),
    **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4), INT8),
}


@dataclass(frozen=True)
class Layer:
    """One operator that multiplies and adds: its multiply-adds, its output shape, its weights.

    `weights` names the learned tensors that reach it, directly or through operators that read
    nothing else (a transposition, a dequantisation). `precision` is one of `cost.PRECISIONS`.
    """

    name: str
    operator: str
    multiply_adds: int
    output_shape: tuple[int, ...]
    weights: tuple[str, ...] = ()
    precision: str = FP32


def load(path: Path) -> onnx.ModelProto:
    """The graph in a file. Raises CorruptData where it is not an ONNX model."""
    try:
        return onnx.load(path)
    except Exception as error:  # the errors of protobuf and onnx share no base
        raise CorruptData(f"{path} is not an ONNX model: {error}") from error


def cost_of(model: onnx.ModelProto, *, batches: bool, sizes: Sizes | None = None) -> ModelCost:
    """The cost of one sample; `batches` says that the first axis of each input is the batch.

    `sizes` gives the shapes of inputs with other free axes, for one sample. Raises InvalidInput
    where such an axis, or an operator whose shape cannot be inferred, leaves the cost open; the
    text names it.
    """
    small = sized(model, batches=batches, sizes=sizes)
    weights = weights_of(model)
    inputs = {tensor.name for tensor in real_inputs(model)}
    found = _layers(small, weights=weights)
    moved = {name: t for name, t in weights.items() if name not in _tables(model)}
    return ModelCost(
        multiply_adds_per_sample=sum(layer.multiply_adds for layer in found),
        parameters=sum(math.prod(tensor.dims) for tensor in weights.values()),
        weight_bytes=sum(stored_bytes(t.data_type, shape=t.dims) for t in moved.values()),
        input_bytes_per_sample=sum(bytes_of(t) for t in small.graph.input if t.name in inputs),
        output_bytes_per_sample=sum(map(bytes_of, small.graph.output)),
        layers=tuple(_work(found, weights=weights)),
    )


def layers(
    model: onnx.ModelProto, *, batches: bool, rows: int = 1, sizes: Sizes | None = None
) -> list[Layer]:
    """The operators that multiply and add, in the order of the graph, for a batch of `rows`.

    Raises as `cost_of`.
    """
    whole = sized(model, batches=batches, rows=rows, sizes=sizes)
    return _layers(whole, weights=weights_of(model))


def _layers(model: onnx.ModelProto, *, weights: dict[str, onnx.TensorProto]) -> list[Layer]:
    shapes, elements = shapes_of(model), elements_of(model)
    origins = origins_of(model, weights=weights)
    found = []
    for node in model.graph.node:
        count = COUNTS.get(node.op_type)
        if count is None:
            continue
        needed = [name for name in (*node.input, *node.output) if name]
        if unknown := [name for name in needed if name not in shapes]:
            raise InvalidInput(
                f"the cost of {node.op_type} {node.name!r} is open: no shape for {unknown[0]!r}"
            )
        output = next(name for name in node.output if name)
        own = [name for tensor in node.input for name in origins.get(tensor, ())]
        kinds = [weights[name].data_type for name in own] or [elements.get(node.input[0])]
        found.append(
            Layer(
                node.name or output,
                node.op_type,
                count(node, shapes),
                shapes[output],
                weights=tuple(own),
                precision=_PRECISIONS.get(kinds[0], FP32),
            )
        )
    return found


def origins_of(
    model: onnx.ModelProto, *, weights: dict[str, onnx.TensorProto]
) -> dict[str, tuple[str, ...]]:
    """For each tensor that no input reaches, the weights it was made of."""
    origins: dict[str, tuple[str, ...]] = {t.name: () for t in model.graph.initializer}
    origins |= {name: (name,) for name in weights}
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        if all(name in origins for name in inputs):
            own = (name for tensor in inputs for name in origins[tensor])
            made = tuple(dict.fromkeys(own))
            origins |= {name: (name,) if name in weights else made for name in node.output}
    return origins


def _work(found: Sequence[Layer], *, weights: dict[str, onnx.TensorProto]) -> list[LayerWork]:
    """The same per layer as ModelCost holds it; a weight counts where it is read first."""
    seen: set[str] = set()
    work = []
    for layer in found:
        new = [weights[name] for name in layer.weights if name not in seen]
        seen.update(layer.weights)
        size = sum(stored_bytes(tensor.data_type, shape=tensor.dims) for tensor in new)
        work.append(LayerWork(layer.multiply_adds, size, layer.precision))
    return work


def _tables(model: onnx.ModelProto) -> set[str]:
    """The weights of which rows are picked and nothing else: no pass has to read them whole."""
    reads, picks = Counter[str](), Counter[str]()
    for node in model.graph.node:
        reads.update(node.input)
        if node.op_type in _PICKS_ROWS:
            picks[node.input[0]] += 1
    reads.update(tensor.name for tensor in model.graph.output)
    return {name for name, count in picks.items() if reads[name] == count}
