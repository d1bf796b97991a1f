"""SavedModel to ONNX, with a free batch axis and the names of the SavedModel's signature."""

import logging
from collections.abc import Iterator, Mapping

import onnx
import tf2onnx
from tf2onnx import tf_loader

from export.recurrent import use_operators
from export.saved_model import SavedModel
from export.weights import lift, put_back
from ridgeline.errors import Unsupported
from ridgeline.model import FREE, TensorSpec

OPSET = 18  # the newest that tf2onnx writes
BATCH_AXIS = "batch"


def convert(model: SavedModel, /, *, name: str) -> onnx.ModelProto:
    """The graph of the model's serving signature, valid ONNX.

    Inputs and outputs are called as in the signature, and the first axis of each is called "batch".
    Raises Unsupported where an operator has no ONNX, naming it.
    """
    _refuse_shared_names(model, name=name)
    # What it cannot convert, it logs and leaves in the graph; told below, as an error.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # tf2onnx still calls TensorFlow 1's
    try:
        converted = _converted(model, name=name)
    except Exception as error:  # tf2onnx raises ValueError, KeyError and TensorFlow's own
        raise Unsupported(f"tf2onnx cannot convert {name!r}: {error}") from error
    _refuse_unknown_operators(converted.graph, name=name)
    _name_tensors(converted.graph, model)
    converted.graph.name = name
    try:
        onnx.checker.check_model(converted)
    except onnx.checker.ValidationError as error:
        raise Unsupported(f"the graph converted from {name!r} is not valid: {error}") from error
    return converted


def _converted(model: SavedModel, *, name: str) -> onnx.ModelProto:
    """What tf2onnx makes of the signature, with weights that it did not have to carry."""
    function = model.positional()
    tensors = [tensor.name for tensor in function.inputs if tensor.dtype.name != "resource"]
    # The function of that package that only writes a graph; TensorFlow's own builds it, too.
    frozen = tf_loader.convert_variables_to_constants_large_model(function)
    frozen = tf_loader.fix_freezing_errors_part2(frozen)
    weights = lift(frozen)
    converted: onnx.ModelProto
    converted, _ = tf2onnx.convert.from_graph_def(
        frozen,
        name=name,
        input_names=[*tensors, *weights],
        output_names=[tensor.name for tensor in function.outputs],
        opset=OPSET,
    )
    put_back(converted, weights)
    use_operators(converted)
    return converted


def _refuse_shared_names(model: SavedModel, *, name: str) -> None:
    """A signature keeps inputs and outputs apart, a graph has one space of names."""
    shared = {spec.name for spec in model.inputs} & {spec.name for spec in model.outputs}
    if shared:
        raise Unsupported(
            f"{name!r} calls an input and an output {sorted(shared)[0]!r}; "
            "ONNX needs different names, rename one in the signature"
        )


def _refuse_unknown_operators(graph: onnx.GraphProto, *, name: str) -> None:
    unknown = {
        f"{node.op_type} ({node.name})"
        for part in _graphs(graph)
        for node in part.node
        if not node.domain and not onnx.defs.has(node.op_type)
    }
    if unknown:
        raise Unsupported(
            f"tf2onnx knows no ONNX for these operators of {name!r}: {', '.join(sorted(unknown))}"
        )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its loops and conditions, at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _graphs(body)


def _name_tensors(graph: onnx.GraphProto, saved: SavedModel) -> None:
    """Rename inputs and outputs, which tf2onnx calls `Identity:0` and the like, where used."""
    names = {}
    for tensors, specs in ((graph.input, saved.inputs), (graph.output, saved.outputs)):
        if len(tensors) != len(specs):
            raise Unsupported(
                f"the converted graph has {[tensor.name for tensor in tensors]}, "
                f"expected one for each of {[spec.name for spec in specs]}"
            )
        for tensor, spec in zip(tensors, specs, strict=True):
            names[tensor.name] = spec.name
            tensor.name = spec.name
            _set_shape(tensor, spec)
    _rename(graph, names)


def _set_shape(tensor: onnx.ValueInfoProto, spec: TensorSpec) -> None:
    """Write the signature's shape; free axes beside the batch keep the names they have."""
    found = [size.dim_param for size in tensor.type.tensor_type.shape.dim]
    named = found if len(found) == len(spec.shape) else [""] * len(spec.shape)
    shape = [
        (named[axis] or None) if size == FREE else size for axis, size in enumerate(spec.shape)
    ]
    element = tensor.type.tensor_type.elem_type
    tensor.CopyFrom(
        onnx.helper.make_tensor_value_info(spec.name, element, [BATCH_AXIS, *shape[1:]])
    )


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever they are made or read, in bodies too, which see those around them."""
    nodes = [node for part in _graphs(graph) for node in part.node]
    inner = {name for node in nodes for name in node.output} | {t.name for t in graph.initializer}
    if clash := (inner - set(names)) & set(names.values()):
        raise Unsupported(f"an inner tensor of the graph is already called {sorted(clash)[0]!r}")
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
