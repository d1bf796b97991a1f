"""The sizes of the tensors of an ONNX graph, for a batch and input shapes that a caller names."""

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx.inliner
from onnx import TensorProto

from ridgeline.errors import InvalidInput
from ridgeline.graph_sizes import fold_sizes
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

Sizes = Mapping[str, Sequence[int]]  # full shapes by input name


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


def sized(
    model: onnx.ModelProto, *, batches: bool, rows: int = 1, sizes: Sizes | None = None
) -> onnx.ModelProto:
    """The model for `rows` rows with every shape inferred, functions inlined, without its weights.

    `batches` says that the first axis of each input is the batch; `sizes` gives whole shapes of
    inputs, which is how other free axes are settled. Raises InvalidInput where sizes stay open.
    """
    light = _without_weights(model)
    inputs = {tensor.name for tensor in real_inputs(model)}
    if unknown := sorted(set(sizes or {}) - inputs):
        raise InvalidInput(f"there is no input {unknown[0]!r}; there are {', '.join(inputs)}")
    for tensor in light.graph.input:
        if tensor.name in inputs:
            given = (sizes or {}).get(tensor.name)
            _set_sizes(tensor, rows=rows if batches else None, given=given)
    for node in light.graph.node:
        _refuse_uncountable(node)
    try:
        inferred = _inferred(light)
    except Exception as error:  # InferenceError, and what protobuf raises
        raise InvalidInput(f"the cost is open: ONNX cannot infer the shapes: {error}") from error
    if batches and not sizes:
        _trust_told_outputs(inferred, model=model, rows=rows)
    for tensor in inferred.graph.output:
        _check_output(tensor, rows=rows if batches and not sizes else None)
    return inferred


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Shapes inferred, and again where they decided what others are computed from.

    Inference alone follows few of the operators with which graphs compute with sizes.
    """
    while True:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if not fold_sizes(model, shapes=shapes_of(model), elements=elements_of(model)):
            return model
        del model.graph.value_info[:]


def _trust_told_outputs(inferred: onnx.ModelProto, *, model: onnx.ModelProto, rows: int) -> None:
    """Where data decide a shape inside, as in non-maximum suppression, take what the graph tells.

    Only where inputs and output call their first axis by one name, and the other axes are fixed.
    """
    first = {_first_axis(tensor) for tensor in real_inputs(model)}
    told = {tensor.name: tensor for tensor in model.graph.output}
    for tensor in inferred.graph.output:
        sizes = dims(told[tensor.name])
        same = {_first_axis(told[tensor.name])} == first != {""}
        if _FREE not in dims(tensor) or _FREE in sizes[1:] or not same:
            continue
        tensor.type.tensor_type.ClearField("shape")
        for size in (rows, *sizes[1:]):
            tensor.type.tensor_type.shape.dim.add(dim_value=size)


def _first_axis(tensor: onnx.ValueInfoProto) -> str:
    axes = tensor.type.tensor_type.shape.dim
    return str(axes[0].dim_param) if axes else ""


def _check_output(tensor: onnx.ValueInfoProto, *, rows: int | None) -> None:
    if _FREE in dims(tensor):
        raise InvalidInput(f"the cost is open: the shape of output {tensor.name!r} is unknown")
    if rows is not None and dims(tensor)[:1] != (rows,):
        what = "one row" if rows == 1 else f"{rows} rows"
        raise InvalidInput(
            f"the cost of one sample is open: for {what} of input, output {tensor.name!r} "
            f"has the shape {list(dims(tensor))}"
        )


def _set_sizes(
    tensor: onnx.ValueInfoProto, *, rows: int | None, given: Sequence[int] | None
) -> None:
    """Set the batch axis of an input. Raises InvalidInput where another axis stays free."""
    if not tensor.type.tensor_type.HasField("shape"):
        raise InvalidInput(f"the cost is open: the shape of input {tensor.name!r} is unknown")
    axes = tensor.type.tensor_type.shape.dim
    if given is not None and len(given) != len(axes):
        raise InvalidInput(
            f"input {tensor.name!r} has {len(axes)} axes, received the shape {list(given)}"
        )
    for axis, size in enumerate(axes):
        fixed = size.HasField("dim_value") and size.dim_value >= 0
        if given is not None:
            if fixed and size.dim_value != given[axis]:
                raise InvalidInput(
                    f"axis {axis} of input {tensor.name!r} is {size.dim_value}, "
                    f"received the shape {list(given)}"
                )
            size.dim_value = given[axis]
        elif rows is not None and axis == 0:
            size.dim_value = rows
        elif not fixed:
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
    light.graph.input.extend(real_inputs(model))
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


def shapes_of(model: onnx.ModelProto) -> Shapes:
    """Shapes by name, of every tensor whose sizes are all known."""
    graph = model.graph
    shapes = {
        tensor.name: dims(tensor)
        for tensor in (*graph.input, *graph.value_info, *graph.output)
        if tensor.type.tensor_type.HasField("shape") and _FREE not in dims(tensor)
    }
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
    return shapes


def dims(tensor: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sizes of a tensor, -1 for each that is free; of an unknown number of axes, one -1."""
    kind = tensor.type.tensor_type
    if not kind.HasField("shape"):
        return (_FREE,)
    # Some writers mark a free axis by a size of -1.
    return tuple(
        max(d.dim_value, _FREE) if d.HasField("dim_value") else _FREE for d in kind.shape.dim
    )


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives: older graphs list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [tensor for tensor in model.graph.input if tensor.name not in weights]


def weights_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The tensors that were learned and are used, by name.

    Left out are whole-number shapes and indices, and single numbers that belong to a formula.
    """
    graph = model.graph
    used = set(_used_names(graph)) | {tensor.name for tensor in graph.output}
    constants = [node for node in graph.node if node.op_type == "Constant"]
    candidates = [(tensor.name, tensor) for tensor in graph.initializer]
    candidates += [(node.output[0], a.t) for node in constants for a in node.attribute]
    return {
        name: tensor
        for name, tensor in candidates
        if name in used and tensor.dims and tensor.data_type not in _NO_WEIGHT
    }


def _used_names(graph: onnx.GraphProto) -> Iterator[str]:
    """What the operators read, those in bodies too, which see the tensors around them."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _used_names(body)


def elements_of(model: onnx.ModelProto) -> dict[str, int]:
    """The ONNX element types by name, of every tensor for which one is known."""
    graph = model.graph
    elements = {
        tensor.name: int(tensor.type.tensor_type.elem_type)
        for tensor in (*graph.input, *graph.value_info, *graph.output)
    }
    return elements | {tensor.name: int(tensor.data_type) for tensor in graph.initializer}


def bytes_of(tensor: onnx.ValueInfoProto) -> int:
    """Bytes of a tensor whose sizes are all known."""
    return stored_bytes(tensor.type.tensor_type.elem_type, shape=dims(tensor))


def stored_bytes(element: int, *, shape: Sequence[int]) -> int:
    """Bytes of a tensor; texts count nothing, since their length is not in the graph."""
    if element == TensorProto.STRING:
        return 0
    return math.prod(shape) * int(onnx.helper.tensor_dtype_to_np_dtype(element).itemsize)
