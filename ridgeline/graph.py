"""What a forward pass costs, counted operator by operator from an ONNX graph.

Counted are the operators that multiply and add: convolutions, matrix products and recurrent cells.
Their multiply-adds follow from the shapes that ONNX's own shape inference finds. Activations,
normalisation and pooling are left out, as in the figures that papers publish.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper

from ridgeline.cost import ModelCost
from ridgeline.errors import CorruptData, InvalidInput

_Shapes = Mapping[str, tuple[int, ...]]

_FREE = -1


@dataclass(frozen=True)
class Layer:
    """One operator that multiplies and adds: its multiply-adds for one sample, its output shape."""

    name: str
    operator: str
    multiply_adds: int
    output_shape: tuple[int, ...]


def load(path: Path) -> onnx.ModelProto:
    """The graph in a file. Raises CorruptData where it is not an ONNX model."""
    try:
        return onnx.load(path)
    except Exception as error:  # the errors of protobuf and onnx share no base
        raise CorruptData(f"{path} is not an ONNX model: {error}") from error


def cost_of(model: onnx.ModelProto, *, batches: bool) -> ModelCost:
    """The cost of one sample; `batches` says that the first axis of each input is the batch.

    Raises InvalidInput where a free axis other than the batch, or an operator whose shape cannot be
    inferred, leaves the cost open; the text names it.
    """
    sizes = _sizes_of_one_sample(model, batches=batches)
    weights = _weights(model)
    return ModelCost(
        multiply_adds_per_sample=sum(layer.multiply_adds for layer in _layers(sizes)),
        parameters=sum(math.prod(tensor.dims) for tensor in weights),
        weight_bytes=sum(numpy_helper.to_array(tensor).nbytes for tensor in weights),
        input_bytes_per_sample=sum(map(_bytes, _real_inputs(sizes))),
        output_bytes_per_sample=sum(map(_bytes, sizes.graph.output)),
    )


def layers(model: onnx.ModelProto, *, batches: bool) -> list[Layer]:
    """The operators that multiply and add, in the order of the graph. Raises as `cost_of`."""
    return _layers(_sizes_of_one_sample(model, batches=batches))


def _layers(model: onnx.ModelProto) -> list[Layer]:
    shapes = _shapes(model)
    found = []
    for node in model.graph.node:
        count = _COUNTS.get(node.op_type)
        if count is None:
            continue
        needed = [name for name in (*node.input, *node.output) if name]
        if unknown := [name for name in needed if name not in shapes]:
            raise InvalidInput(
                f"the cost of {node.op_type} {node.name!r} is open: no shape for {unknown[0]!r}"
            )
        output = next(name for name in node.output if name)
        found.append(Layer(node.name or output, node.op_type, count(node, shapes), shapes[output]))
    return found


def _sizes_of_one_sample(model: onnx.ModelProto, *, batches: bool) -> onnx.ModelProto:
    """The model with its batch axis set to one and every shape inferred."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for tensor in _real_inputs(sized):
        for axis, size in enumerate(tensor.type.tensor_type.shape.dim):
            if batches and axis == 0:
                size.dim_value = 1
            elif not size.HasField("dim_value"):
                raise InvalidInput(
                    f"the cost is open: axis {axis} of input {tensor.name!r} is free "
                    f"({size.dim_param or 'no name'})"
                )
    for tensor in sized.graph.output:  # inferred anew from the inputs
        tensor.type.tensor_type.ClearField("shape")
    del sized.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True)
    for tensor in inferred.graph.output:
        if _FREE in _dims(tensor):
            raise InvalidInput(f"the cost is open: the shape of output {tensor.name!r} is unknown")
    return inferred


def _shapes(model: onnx.ModelProto) -> _Shapes:
    """Shapes by name, of every tensor whose sizes are all known."""
    graph = model.graph
    shapes = {
        tensor.name: _dims(tensor)
        for tensor in (*graph.input, *graph.value_info, *graph.output)
        if tensor.type.tensor_type.HasField("shape") and _FREE not in _dims(tensor)
    }
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
    return shapes


def _dims(tensor: onnx.ValueInfoProto) -> tuple[int, ...]:
    kind = tensor.type.tensor_type
    if not kind.HasField("shape"):
        return (_FREE,)
    return tuple(d.dim_value if d.HasField("dim_value") else _FREE for d in kind.shape.dim)


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives: older graphs list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [tensor for tensor in model.graph.input if tensor.name not in weights]


def _weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The tensors that were learned: initializers, but for whole-number shapes and indices."""
    shape_like = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    return [tensor for tensor in model.graph.initializer if tensor.data_type not in shape_like]


def _bytes(tensor: onnx.ValueInfoProto) -> int:
    """Bytes of one sample; texts count nothing, since their length is not in the graph."""
    element = tensor.type.tensor_type.elem_type
    if element == onnx.TensorProto.STRING:
        return 0
    item = onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
    return math.prod(_dims(tensor)) * int(item)


def _convolution(node: onnx.NodeProto, shapes: _Shapes) -> int:
    """Each output element sums over the kernel and the input channels of its group."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _transposed_convolution(node: onnx.NodeProto, shapes: _Shapes) -> int:
    """Each input element is spread over the kernel and the output channels of its group."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _matrix_product(node: onnx.NodeProto, shapes: _Shapes) -> int:
    """Each output element sums over the last axis of the left factor."""
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: _Shapes) -> int:
    rows, columns = shapes[node.input[0]]
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * (rows if transposed else columns)


def _recurrent(node: onnx.NodeProto, shapes: _Shapes) -> int:
    """Per step and direction: every gate multiplies the input and the state.

    X is (steps, batch, input); W (directions, gates * hidden, input) and R (directions,
    gates * hidden, hidden) hold all gates, as the ONNX operators define them.
    """
    steps, batch, _ = shapes[node.input[0]]
    return steps * batch * (math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]]))


_COUNTS: Mapping[str, Callable[[onnx.NodeProto, _Shapes], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "Gemm": _gemm,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
}
