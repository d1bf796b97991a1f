"""How often each ONNX operator multiplies and adds, from the shapes of its tensors."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ridgeline.errors import InvalidInput

if TYPE_CHECKING:
    import onnx

Shapes = Mapping[str, tuple[int, ...]]  # by tensor name, every size known


def _convolution(node: "onnx.NodeProto", shapes: Shapes) -> int:
    """Each output element sums over the kernel and the input channels of its group."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _quantised_convolution(node: "onnx.NodeProto", shapes: Shapes) -> int:
    """As a convolution; scale and zero point stand between the input and the kernel."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[3]][1:])


def _transposed_convolution(node: "onnx.NodeProto", shapes: Shapes) -> int:
    """Each input element is spread over the kernel and the output channels of its group."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _matrix_product(node: "onnx.NodeProto", shapes: Shapes) -> int:
    """Each output element sums over the last axis of the left factor."""
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: "onnx.NodeProto", shapes: Shapes) -> int:
    rows, columns = shapes[node.input[0]]
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * (rows if transposed else columns)


def _einsum(node: "onnx.NodeProto", shapes: Shapes) -> int:
    """Two factors multiply once for each choice of all their indices; one factor never does."""
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) > 2 or "." in equation:
        raise InvalidInput(
            f"the cost of Einsum {node.name!r} is open: "
            f"expected one or two factors without '...', received {equation!r}"
        )
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        for index, size in zip(term, shapes[name], strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return math.prod(sizes.values()) if len(terms) == 2 else 0


def _recurrent(node: "onnx.NodeProto", shapes: Shapes) -> int:
    """Per step and direction: every gate multiplies the input and the state.

    X is (steps, batch, input); W (directions, gates * hidden, input) and R (directions,
    gates * hidden, hidden) hold all gates, as the ONNX operators define them.
    """
    steps, batch, _ = shapes[node.input[0]]
    return steps * batch * (math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]]))


COUNTS: Mapping[str, Callable[["onnx.NodeProto", Shapes], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "DeformConv": _convolution,
    "QLinearConv": _quantised_convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearMatMul": _matrix_product,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
}
# These multiply, too, but no formula for them has been checked here.
UNCOUNTED = frozenset({"Attention", "LinearAttention", "CausalConvWithState"})
