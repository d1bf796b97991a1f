"""What a forward pass costs, counted operator by operator from an ONNX graph.

Counted are the operators that multiply and add: convolutions, matrix products and recurrent cells.
Their multiply-adds follow from the shapes that ONNX's own shape inference finds. Activations,
normalisation and pooling are left out, as in the figures that papers publish. A graph that may
multiply where this cannot be counted (in the body of a loop, in an operator that ONNX does not
define) has no cost, rather than one that is too low.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from onnx import TensorProto

from ridgeline.cost import ModelCost
from ridgeline.errors import CorruptData, InvalidInput
from ridgeline.multiply_adds import COUNTS, UNCOUNTED, Shapes

_FREE = -1
_ONNX_DOMAINS = ("", "ai.onnx")
_SHAPE_ELEMENTS = 1024  # a larger initializer is no list of sizes that shape inference reads
_NO_WEIGHT = frozenset(
    {
        TensorProto.UNDEFINED,  # an attribute of a Constant that holds no tensor
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.BOOL,
        TensorProto.STRING,
    }
)


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
    inputs = {tensor.name for tensor in _real_inputs(model)}
    return ModelCost(
        multiply_adds_per_sample=sum(layer.multiply_adds for layer in _layers(sizes)),
        parameters=sum(math.prod(tensor.dims) for tensor in weights),
        weight_bytes=sum(_bytes(t.data_type, shape=t.dims) for t in weights),
        input_bytes_per_sample=sum(_sample_bytes(t) for t in sizes.graph.input if t.name in inputs),
        output_bytes_per_sample=sum(map(_sample_bytes, sizes.graph.output)),
    )


def layers(model: onnx.ModelProto, *, batches: bool) -> list[Layer]:
    """The operators that multiply and add, in the order of the graph. Raises as `cost_of`."""
    return _layers(_sizes_of_one_sample(model, batches=batches))


def _layers(model: onnx.ModelProto) -> list[Layer]:
    shapes = _shapes(model)
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
        found.append(Layer(node.name or output, node.op_type, count(node, shapes), shapes[output]))
    return found


def _refuse_uncountable(node: onnx.NodeProto) -> None:
    """A body runs an unknown number of times; what a foreign operator multiplies is unknown."""
    if node.domain not in _ONNX_DOMAINS or node.op_type in UNCOUNTED:
        raise InvalidInput(
            f"the cost of {node.op_type} {node.name!r} is open: "
            f"no count is known for this operator of {node.domain or 'ONNX'}"
        )
    for inner in _inner_nodes(node):
        if inner.op_type in COUNTS:
            raise InvalidInput(
                f"the cost of {node.op_type} {node.name!r} is open: "
                f"{inner.op_type} {inner.name!r} in its body may run any number of times"
            )
        _refuse_uncountable(inner)


def _inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The operators directly in the bodies of a Loop, a Scan, an If."""
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from body.node


def _sizes_of_one_sample(model: onnx.ModelProto, *, batches: bool) -> onnx.ModelProto:
    """The model with its batch axis set to one and every shape inferred, without its weights."""
    sized = _without_weights(model)
    inputs = {tensor.name for tensor in _real_inputs(model)}
    for tensor in sized.graph.input:
        if tensor.name in inputs:
            _set_sizes(tensor, batches=batches)
    for node in sized.graph.node:
        _refuse_uncountable(node)
    try:
        inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True)
    except Exception as error:  # InferenceError, and what protobuf raises
        raise InvalidInput(f"the cost is open: ONNX cannot infer the shapes: {error}") from error
    for tensor in inferred.graph.output:
        if _FREE in _dims(tensor):
            raise InvalidInput(f"the cost is open: the shape of output {tensor.name!r} is unknown")
        if batches and _dims(tensor)[:1] != (1,):
            raise InvalidInput(
                f"the cost of one sample is open: for one row of input, output {tensor.name!r} "
                f"has the shape {list(_dims(tensor))}"
            )
    return inferred


def _set_sizes(tensor: onnx.ValueInfoProto, *, batches: bool) -> None:
    """Set the batch axis of an input to one. Raises InvalidInput where another axis is free."""
    if not tensor.type.tensor_type.HasField("shape"):
        raise InvalidInput(f"the cost is open: the shape of input {tensor.name!r} is unknown")
    for axis, size in enumerate(tensor.type.tensor_type.shape.dim):
        if batches and axis == 0:
            size.dim_value = 1
        elif not size.HasField("dim_value") or size.dim_value < 0:
            raise InvalidInput(
                f"the cost is open: axis {axis} of input {tensor.name!r} is free "
                f"({size.dim_param or 'no name'})"
            )


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph alone: large initializers become inputs, which spares copying gigabytes of them.

    Output shapes and those of inner tensors are left out, to be inferred anew from the inputs.
    """
    graph = model.graph
    light = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    light.graph.name = graph.name or "graph"
    light.graph.node.extend(graph.node)
    light.graph.input.extend(_real_inputs(model))
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > _SHAPE_ELEMENTS:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(info)
        else:
            light.graph.initializer.append(tensor)
    for output in graph.output:
        light.graph.output.append(output)
        light.graph.output[-1].type.tensor_type.ClearField("shape")
    return onnx.inliner.inline_local_functions(light) if model.functions else light


def _shapes(model: onnx.ModelProto) -> Shapes:
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
    # Some writers mark a free axis by a size of -1.
    return tuple(
        max(d.dim_value, _FREE) if d.HasField("dim_value") else _FREE for d in kind.shape.dim
    )


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives: older graphs list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [tensor for tensor in model.graph.input if tensor.name not in weights]


def _weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The tensors that were learned and are used.

    Left out are whole-number shapes and indices, and single numbers that belong to a formula.
    """
    graph = model.graph
    used = set(_used_names(graph)) | {tensor.name for tensor in graph.output}
    constants = [node for node in graph.node if node.op_type == "Constant"]
    candidates = [(tensor.name, tensor) for tensor in graph.initializer]
    candidates += [(node.output[0], a.t) for node in constants for a in node.attribute]
    return [
        tensor
        for name, tensor in candidates
        if name in used and tensor.dims and tensor.data_type not in _NO_WEIGHT
    ]


def _used_names(graph: onnx.GraphProto) -> Iterator[str]:
    """What the operators read, those in bodies too, which see the tensors around them."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _used_names(body)


def _sample_bytes(tensor: onnx.ValueInfoProto) -> int:
    return _bytes(tensor.type.tensor_type.elem_type, shape=_dims(tensor))


def _bytes(element: int, *, shape: Sequence[int]) -> int:
    """Bytes of a tensor; texts count nothing, since their length is not in the graph."""
    if element == TensorProto.STRING:
        return 0
    return math.prod(shape) * int(onnx.helper.tensor_dtype_to_np_dtype(element).itemsize)
