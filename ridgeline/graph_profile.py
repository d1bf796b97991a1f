"""What each operator of a graph does and moves, for a batch: the material of a roofline.

Beyond what must happen (`graph.cost_of`), this counts the activations that each operator reads and
writes, as if nothing between operators stayed in a cache. An engine may do with less; what comes of
it is therefore an estimate, and no bound.
"""

import math
from collections import Counter
from dataclasses import dataclass

import onnx

from ridgeline.cost import FP32
from ridgeline.graph import Layer, layers, origins_of
from ridgeline.graph_shapes import Sizes, elements_of, shapes_of, sized, stored_bytes, weights_of

DENSE_CONVOLUTION, DEPTHWISE_CONVOLUTION = "dense convolution", "depthwise convolution"
PRODUCT, RECURRENT, ELEMENTWISE, POOLING = "matrix product", "recurrent", "elementwise", "pooling"
TRANSPOSITION = "transposition"
TRANSCENDENTAL = "transcendental function"
THIN_CONVOLUTION = "thin convolution"
KINDS = (
    *(DENSE_CONVOLUTION, DEPTHWISE_CONVOLUTION, THIN_CONVOLUTION, PRODUCT, RECURRENT),
    *(ELEMENTWISE, TRANSCENDENTAL, POOLING, TRANSPOSITION),
)
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "DeformConv"})
_RECURRENT = frozenset({"RNN", "GRU", "LSTM"})
# Engines compute these where the values are made, or only give the same bytes another name.
_FUSED = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish"),
        *("BatchNormalization", "DequantizeLinear", "QuantizeLinear"),
    }
)
_FREE_OF_CHARGE = frozenset(
    {
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape"),
        *("Constant", "ConstantOfShape", "Size", "Cast"),
    }
)
# Fused or not, an element of these takes as long as dozens of multiply-adds.
_TRANSCENDENTAL = frozenset(
    {
        "Tanh",
        "Sigmoid",
        "Softmax",
        "LogSoftmax",
        "Softplus",
        "Exp",
        "Log",
        "Pow",
        "Erf",
        "Gelu",
        "LRN",
    }
)
_FEW_CHANNELS = 16  # engines keep channels in blocks of 8 or 16: of fewer, some lanes stay empty
_FEW_GROUPS = 4  # AlexNet has 2; where there are many, each kernel sees little of the input


@dataclass(frozen=True)
class Operator:
    """One operator for one batch: multiply-adds, bytes of its weights, bytes read and written.

    `kind` is one of KINDS, `precision` one of `cost.PRECISIONS`.
    """

    name: str
    operator: str
    kind: str
    multiply_adds: int
    weight_bytes: int
    activation_bytes: int
    precision: str = FP32

    @property
    def flops(self) -> int:
        """One multiply-add is two."""
        return 2 * self.multiply_adds

    @property
    def bytes_moved(self) -> int:
        """Weights and activations together."""
        return self.weight_bytes + self.activation_bytes


def profile(
    model: onnx.ModelProto, *, batches: bool, rows: int = 1, sizes: Sizes | None = None
) -> list[Operator]:
    """The operators that take time, for a batch of `rows`; raises as `graph.cost_of`.

    Left out are those whose result depends on no input, and those that engines fuse into the
    operator before: an activation right after a convolution, for one.
    """
    whole = sized(model, batches=batches, rows=rows, sizes=sizes)
    counted = {
        layer.name: layer for layer in layers(model, batches=batches, rows=rows, sizes=sizes)
    }
    return _Reader(whole, weights=weights_of(model), counted=counted).operators()


class _Reader:
    """Walks a graph whose shapes are known."""

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        weights: dict[str, onnx.TensorProto],
        counted: dict[str, Layer],
    ) -> None:
        self._nodes = model.graph.node
        self._shapes, self._elements = shapes_of(model), elements_of(model)
        self._origins = origins_of(model, weights=weights)
        self._weights, self._counted = weights, counted
        self._readers = Counter(name for node in self._nodes for name in node.input)
        self._makers = {name: node for node in self._nodes for name in node.output}

    def operators(self) -> list[Operator]:
        return [self._operator(node) for node in self._nodes if self._takes_time(node)]

    def _takes_time(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _FREE_OF_CHARGE or all(name in self._origins for name in node.output):
            return False
        before = self._makers.get(node.input[0]) if node.input else None
        fused = (
            node.op_type in _FUSED
            and before is not None
            and self._name(before) in self._counted
            and self._readers[node.input[0]] == 1
        )
        return not fused

    def _operator(self, node: onnx.NodeProto) -> Operator:
        layer = self._counted.get(self._name(node))
        own = layer.weights if layer else ()
        touched = [name for name in (*node.input, *node.output) if name not in self._origins]
        return Operator(
            name=self._name(node),
            operator=node.op_type,
            kind=self._kind(node),
            multiply_adds=layer.multiply_adds if layer else 0,
            weight_bytes=sum(self._stored(self._weights[name]) for name in dict.fromkeys(own)),
            activation_bytes=sum(self._bytes(name) for name in touched),
            precision=layer.precision if layer else FP32,
        )

    def _kind(self, node: onnx.NodeProto) -> str:
        if node.op_type in _CONVOLUTIONS:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if groups > _FEW_GROUPS:
                return DEPTHWISE_CONVOLUTION
            kernel = self._shapes.get(node.input[1], ())[:2]  # outputs, and inputs of a group
            known = [size for size in kernel if isinstance(size, int)]
            return (
                THIN_CONVOLUTION
                if min(known, default=_FEW_CHANNELS) < _FEW_CHANNELS
                else DENSE_CONVOLUTION
            )
        if node.op_type in _RECURRENT:
            return RECURRENT
        if self._name(node) in self._counted:
            return PRODUCT
        if node.op_type == "Transpose":
            return TRANSPOSITION
        if node.op_type in _TRANSCENDENTAL:
            return TRANSCENDENTAL
        return POOLING if "Pool" in node.op_type else ELEMENTWISE

    def _name(self, node: onnx.NodeProto) -> str:
        return str(node.name or next((name for name in node.output if name), ""))

    def _bytes(self, name: str) -> int:
        """Bytes of an activation; 0 where its shape or type stayed unknown."""
        shape, element = self._shapes.get(name), self._elements.get(name)
        return stored_bytes(element, shape=shape) if element and shape is not None else 0

    @staticmethod
    def _stored(tensor: onnx.TensorProto) -> int:
        return math.prod(tensor.dims) and stored_bytes(tensor.data_type, shape=tensor.dims)
