"""What a graph computes from sizes alone, once the sizes are known."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

_MOST_ELEMENTS = 1024  # more are no sizes
_WHOLE = frozenset(
    {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.UINT8}
)
_DRAWN = frozenset({"RandomNormal", "RandomUniform", "Multinomial", "Bernoulli"})


def fold_sizes(
    model: onnx.ModelProto, *, shapes: Mapping[str, tuple[int, ...]], elements: Mapping[str, int]
) -> bool:
    """Make constants of the whole numbers that follow from `shapes`; whether there were any.

    Weights are not touched, though they be few: whose weights a layer has must stay known.
    """
    graph = model.graph
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    constants = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if _told(tensor)
    }
    for node in graph.node:
        if node.op_type == "Constant":
            constants |= _run(node, {}, opsets=opsets)
    kept: list[onnx.NodeProto] = []
    found: dict[str, np.ndarray] = {}
    for node in graph.node:
        made = _folded(node, constants, shapes=shapes, elements=elements, opsets=opsets)
        constants |= made
        found |= made
        kept += [] if made else [node]
    if not found:
        return False
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in found.items())
    return True


def _told(tensor: onnx.TensorProto) -> bool:
    """Whether a constant is small and there: weights may be named and sized, but hold nothing."""
    values = (
        *(tensor.raw_data, tensor.int32_data, tensor.int64_data, tensor.uint64_data),
        *(tensor.float_data, tensor.double_data, tensor.string_data),
    )
    elements = int(np.prod(tensor.dims))
    return elements == 0 or (elements <= _MOST_ELEMENTS and any(len(each) for each in values))


def _folded(
    node: onnx.NodeProto,
    constants: Mapping[str, np.ndarray],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    elements: Mapping[str, int],
    opsets: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """The outputs of the node; empty where they are no sizes, or not known."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        start, end = (
            next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end")
        )
        return {node.output[0]: np.array(shapes[node.input[0]][start:end], np.int64)}
    outputs = [name for name in node.output if name]
    inputs = [name for name in node.input if name]
    sizes = (
        bool(inputs)
        and node.op_type not in _DRAWN
        and not any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
        and all(elements.get(name) in _WHOLE for name in outputs)
        and all(name in constants and constants[name].size <= _MOST_ELEMENTS for name in inputs)
        and all(np.prod(shapes.get(name, 1)) <= _MOST_ELEMENTS for name in outputs)
    )
    return _run(node, {name: constants[name] for name in inputs}, opsets=opsets) if sizes else {}


def _run(
    node: onnx.NodeProto, feed: Mapping[str, np.ndarray], *, opsets: Mapping[str, int]
) -> dict[str, np.ndarray]:
    import onnx.reference  # a package of hundreds of modules, which few graphs need

    evaluator = onnx.reference.ReferenceEvaluator(node, opsets=dict(opsets))
    found = map(np.asarray, evaluator.run(None, dict(feed)))
    return dict(zip(node.output, found, strict=False))
