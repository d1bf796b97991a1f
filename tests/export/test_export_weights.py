"""Large weights go past the converter, and arrive as they were."""

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from export.convert import convert
from export.saved_model import SavedModel
from export.weights import lift, put_back


def test_large_constants_become_inputs_and_small_ones_stay():
    with tf.Graph().as_default() as graph:
        tf.constant(np.arange(10_000, dtype=np.float32), name="large")
        tf.constant(np.ones(10, np.float32), name="small")
    definition = graph.as_graph_def()
    weights = lift(definition)
    assert {name: array.tolist() for name, array in weights.items()} == {
        "large:0": list(range(10_000))
    }
    assert [(node.name, node.op) for node in definition.node] == [
        ("large", "Placeholder"),
        ("small", "Const"),
    ]


def test_what_is_computed_from_weights_alone_is_computed_once():
    nodes = [
        onnx.helper.make_node("Transpose", ["kernel"], ["turned"], perm=[1, 0]),
        onnx.helper.make_node("Reshape", ["turned", "shape"], ["flat"]),
        onnx.helper.make_node("Add", ["x", "flat"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [value("x", 1, [6]), value("kernel", 1, [2, 3])],
        [value("y", 1, [6])],
        [onnx.numpy_helper.from_array(np.array([6]), "shape")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    put_back(model, {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)})
    assert [node.op_type for node in model.graph.node] == ["Add"]
    assert [tensor.name for tensor in model.graph.input] == ["x"]
    (flat,) = model.graph.initializer
    assert onnx.numpy_helper.to_array(flat).tolist() == [0, 3, 1, 4, 2, 5]


def test_a_network_of_large_layers_answers_as_before(save):
    kernel = tf.constant(np.random.default_rng(1).normal(size=(3, 3, 64, 64)), tf.float32)
    matrix = tf.constant(np.random.default_rng(2).normal(size=(64, 300)), tf.float32)

    def network(x):
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        return {"y": tf.reduce_mean(x, (1, 2)) @ matrix}

    saved = SavedModel(save(network, 5, 5, 64))
    model = convert(saved, name="large")
    weights = {tensor.name for tensor in model.graph.initializer}
    turned = [n for n in model.graph.node if n.op_type == "Transpose" and n.input[0] in weights]
    assert not turned
    x = np.random.default_rng(3).normal(size=(2, 5, 5, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": x})
    expected = saved.run({"x": x})["y"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
