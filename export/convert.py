"""SavedModel to ONNX, with a free batch axis and the names of the SavedModel's signature."""

import logging

import onnx
import tf2onnx

from export.saved_model import SavedModel
from ridgeline.errors import Unsupported

OPSET = 18  # the newest that tf2onnx writes
BATCH_AXIS = "batch"


def convert(model: SavedModel, /, *, name: str) -> onnx.ModelProto:
    """The graph of the model's serving signature. Raises Unsupported where an operator has no ONNX.

    Inputs and outputs are called as in the signature, and the first axis of each is called "batch".
    """
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function, signature = model.positional()
    graph: onnx.ModelProto
    try:
        graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    except Exception as error:  # tf2onnx raises ValueError, KeyError and TensorFlow's own
        raise Unsupported(f"tf2onnx cannot convert {name!r}: {error}") from error
    _name_tensors(graph, model)
    graph.graph.name = name
    onnx.checker.check_model(graph)
    return graph


def _name_tensors(model: onnx.ModelProto, saved: SavedModel) -> None:
    """Rename inputs and outputs, which tf2onnx calls `Identity:0` and the like, where used."""
    graph = model.graph
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
            batch = tensor.type.tensor_type.shape.dim[0]
            batch.Clear()
            batch.dim_param = BATCH_AXIS
    taken = {name for node in graph.node for name in node.output} - set(names)
    if clash := taken & set(names.values()):
        raise Unsupported(f"an inner tensor of the graph is already called {sorted(clash)[0]!r}")
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
