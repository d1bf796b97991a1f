"""FLOPs counted from exported graphs against TensorFlow's profiler, the difference explained.

The profiler also counts what follows the products: adding biases, average pooling, softmax. Those
are a few percent, and left out of `ridgeline.cost`, as in the figures that papers publish.
"""

import importlib

import pytest

from ridgeline import graph

MULTIPLYING = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}
REST = {"BiasAdd", "AvgPool", "MaxPool", "Softmax", "Mean", "Mul", "Add", "AddV2", "Sub", "Rsqrt"}


def profiled(tf, function):
    """FLOPs by operator, as TensorFlow's profiler finds them."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2_as_graph,
    )

    _, definition = convert_variables_to_constants_v2_as_graph(function.get_concrete_function())
    v1 = tf.compat.v1
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(definition, name="")
    builder = v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    node = v1.profiler.profile(graph=whole, run_meta=v1.RunMetadata(), cmd="op", options=options)
    found = {}
    while node.children:
        (node,) = node.children
        found[node.name] = node.float_ops
    return found


@pytest.mark.parametrize("name", ["lenet5", "perceptron"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_products_count_as_in_tensorflow_and_the_rest_is_explained(tf, name):
    import tf2onnx

    model = importlib.import_module(f"training.zoo.{name}").build()
    shape = [1, *model.inputs[0].shape[1:]]
    signature = [tf.TensorSpec(shape, tf.float32, name="image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    exported, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    ours = graph.cost_of(exported, batches=True).flops_per_sample
    theirs = profiled(tf, function)
    assert sum(theirs.get(operator, 0) for operator in MULTIPLYING) == ours
    rest = sum(theirs.values()) - ours
    assert set(theirs) - MULTIPLYING <= REST
    assert 0 < rest < 0.02 * ours
