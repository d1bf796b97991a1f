"""Large weights on their way from TensorFlow to ONNX: past the converter, not through it.

TensorFlow's optimiser and tf2onnx both copy and fold constants many times, which takes VGG-16
minutes and more than ten gigabytes. So large constants become inputs of the graph that is converted
(`lift`), and initializers of what comes out of it (`put_back`), where what is computed from
constants alone is computed, once.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.reference
import tensorflow as tf
from onnx import numpy_helper

_LARGE_BYTES = 1 << 15  # vectors of normalisations stay constants, and are folded by TensorFlow
# What makes much out of little, or differently each time, stays in the graph.
_LEFT_TO_THE_ENGINE = frozenset(
    {
        *("Expand", "ConstantOfShape", "Tile", "Range", "QuantizeLinear", "DequantizeLinear"),
        *("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli"),
        *("RandomNormalLike", "RandomUniformLike"),
    }
)


def lift(graph: tf.compat.v1.GraphDef) -> dict[str, np.ndarray]:
    """Turn the large constants of `graph`, a GraphDef, into inputs; returns them by tensor name."""
    weights = {}
    for node in graph.node:
        if node.op != "Const":
            continue
        tensor = node.attr["value"].tensor
        if len(tensor.tensor_content) <= _LARGE_BYTES:
            continue
        weights[f"{node.name}:0"] = tf.make_ndarray(tensor)
        kind, shape = tensor.dtype, tf.TensorShape(tensor.tensor_shape).as_proto()
        node.op = "Placeholder"
        node.attr.clear()
        node.attr["dtype"].type = kind
        node.attr["shape"].shape.CopyFrom(shape)
    return weights


def put_back(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Make initializers of the inputs named in `weights`, and compute what needs no input."""
    graph, opsets = model.graph, {entry.domain: entry.version for entry in model.opset_import}
    inputs = [tensor for tensor in graph.input if tensor.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= weights
    kept = [node for node in graph.node if not _folds(node, constants, opsets=opsets)]
    del graph.node[:]
    graph.node.extend(kept)
    set_initializers(graph, constants)


def set_initializers(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray]) -> None:
    """Make those of `constants` that are read in `graph`, bodies included, its initializers."""
    used = names_read(graph) | {tensor.name for tensor in graph.output}
    del graph.initializer[:]
    for name, array in constants.items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(array, name))


def names_read(graph: onnx.GraphProto) -> set[str]:
    """What the nodes of a graph read, and those in bodies, which see the tensors around them."""
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= names_read(attribute.g)
                names.update(tensor.name for tensor in attribute.g.output)
    return names


def _folds(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], *, opsets: Mapping[str, int]
) -> bool:
    """Whether the node reads constants alone; what it gives is then among them."""
    has_body = any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
    read = [name for name in node.input if name]
    if has_body or node.op_type in _LEFT_TO_THE_ENGINE or node.domain not in ("", "ai.onnx"):
        return False
    if not all(name in constants for name in read):
        return False
    session = onnx.reference.ReferenceEvaluator(node, opsets=opsets)
    found = session.run(None, {name: constants[name] for name in read})
    constants.update(zip(node.output, map(np.asarray, found), strict=False))
    return True
