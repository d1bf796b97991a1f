"""What operators do and move, by hand, and the networks of the literature as published."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadtest.bench import imagenet, networks
from ridgeline import graph, graph_profile
from ridgeline.errors import InvalidInput

F4 = 4  # bytes of a float


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def weight(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.zeros(shape, dtype=dtype), name)


def model(nodes, *, inputs, outputs, weights=(), opset=18):
    made = helper.make_graph(nodes, "test", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("name", "multiply_adds", "parameters"),
    [
        ("alexnet", 0.72e9, 61e6),
        ("vgg16", 15.5e9, 138e6),
        ("googlenet", 1.58e9, 7.0e6),
        ("resnet18", 1.8e9, 11.7e6),
        ("resnet50", 4.1e9, 25.5e6),
        ("mobilenetv1", 0.569e9, 4.2e6),
        ("mobilenetv2", 0.30e9, 3.5e6),
        ("squeezenet", 0.349e9, 1.235e6),
    ],
)
def test_networks_cost_what_their_papers_say(name, multiply_adds, parameters):
    cost = graph.cost_of(networks.NETWORKS[name].build(weights=False), batches=True)
    assert cost.multiply_adds_per_sample == pytest.approx(multiply_adds, rel=0.01)
    assert cost.parameters == pytest.approx(parameters, rel=0.01)
    assert sum(layer.weight_bytes for layer in cost.layers) == cost.weight_bytes


def test_resnet_50_as_published_has_its_strides_in_the_first_convolutions():
    cost = graph.cost_of(imagenet.resnet50(weights=False, version="1"), batches=True)
    assert cost.multiply_adds_per_sample == pytest.approx(3.9e9, rel=0.015)


def test_the_networks_span_more_than_four_decades_of_flops():
    costs = [
        graph.cost_of(each.build(weights=False), batches=True)
        for each in networks.NETWORKS.values()
    ]
    counts = [cost.flops_per_sample for cost in costs]
    assert len(counts) >= 8
    assert max(counts) / min(counts) > 1e4


@pytest.fixture(scope="module")
def small():
    """Convolution, rectifier, pooling, flattening, product: 8 x 8 pixels of 2 channels."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], name="gemm"),
    ]
    return model(
        nodes,
        inputs=[value("x", "batch", 2, 8, 8)],
        outputs=[value("y", "batch", 5)],
        weights=[weight("w1", 4, 2, 3, 3), weight("b1", 4), weight("w2", 36, 5)],
    )


def test_operators_are_charged_for_what_they_read_and_write(small):
    conv, pool, gemm = graph_profile.profile(small, batches=True, rows=3)
    assert [each.name for each in (conv, pool, gemm)] == ["conv", "pool", "gemm"]
    assert conv.kind == graph_profile.THIN_CONVOLUTION
    assert conv.multiply_adds == 3 * 4 * 6 * 6 * 2 * 3 * 3
    assert conv.flops == 2 * conv.multiply_adds
    assert conv.weight_bytes == F4 * (4 * 2 * 3 * 3 + 4)
    assert conv.activation_bytes == 3 * F4 * (2 * 8 * 8 + 4 * 6 * 6)
    assert conv.bytes_moved == conv.weight_bytes + conv.activation_bytes
    assert (pool.kind, pool.multiply_adds) == (graph_profile.POOLING, 0)
    assert pool.activation_bytes == 3 * F4 * (4 * 6 * 6 + 4 * 3 * 3)
    assert gemm.kind == graph_profile.PRODUCT
    assert gemm.activation_bytes == 3 * F4 * (36 + 5)


def test_weights_are_the_same_for_any_batch(small):
    one, eight = (graph_profile.profile(small, batches=True, rows=rows) for rows in (1, 8))
    assert sum(each.weight_bytes for each in one) == sum(each.weight_bytes for each in eight)
    assert 8 * sum(each.multiply_adds for each in one) == sum(each.multiply_adds for each in eight)


def test_a_kernel_for_each_channel_is_a_kind_of_its_own():
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=8, pads=[1] * 4)
    made = model(
        [node],
        inputs=[value("x", "batch", 8, 4, 4)],
        outputs=[value("y", "batch", 8, 4, 4)],
        weights=[weight("w", 8, 1, 3, 3)],
    )
    (operator,) = graph_profile.profile(made, batches=True)
    assert operator.kind == graph_profile.DEPTHWISE_CONVOLUTION
    assert operator.multiply_adds == 8 * 4 * 4 * 9


def test_other_kinds_are_recognised():
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], name="lstm", hidden_size=6),
        helper.make_node("Transpose", ["h"], ["t"], name="turn", perm=[3, 0, 1, 2]),
        helper.make_node("Exp", ["t"], ["y"], name="exp"),
    ]
    made = model(
        nodes,
        inputs=[value("x", 7, 1, 5)],
        outputs=[value("y", 6, 7, 1, 1)],
        weights=[weight("w", 1, 24, 5), weight("r", 1, 24, 6)],
    )
    kinds = [each.kind for each in graph_profile.profile(made, batches=False)]
    assert kinds == [
        graph_profile.RECURRENT,
        graph_profile.TRANSPOSITION,
        graph_profile.TRANSCENDENTAL,
    ]


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "kind"),
    [
        (16, 16, 1, graph_profile.DENSE_CONVOLUTION),
        (3, 64, 1, graph_profile.THIN_CONVOLUTION),
        (64, 6, 1, graph_profile.THIN_CONVOLUTION),
        (48, 64, 2, graph_profile.DENSE_CONVOLUTION),
    ],
)
def test_convolutions_of_few_channels_are_a_kind_of_their_own(inputs, outputs, groups, kind):
    made = model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=groups)],
        inputs=[value("x", "batch", inputs, 4, 4)],
        outputs=[value("y", "batch", outputs, 4, 4)],
        weights=[weight("w", outputs, inputs // groups, 1, 1)],
    )
    (operator,) = graph_profile.profile(made, batches=True)
    assert operator.kind == kind


def test_a_hyperbolic_tangent_takes_time_of_its_own_where_a_rectifier_takes_none():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Tanh", ["b"], ["y"], name="tanh"),
    ]
    made = model(
        nodes,
        inputs=[value("x", "batch", 4)],
        outputs=[value("y", "batch", 4)],
        weights=[weight("w", 4, 4)],
    )
    assert [each.name for each in graph_profile.profile(made, batches=True)] == ["product", "tanh"]


def test_a_weight_that_two_layers_share_is_moved_once():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    made = model(
        nodes,
        inputs=[value("x", "batch", 4)],
        outputs=[value("y", "batch", 4)],
        weights=[weight("w", 4, 4)],
    )
    cost = graph.cost_of(made, batches=True)
    assert [layer.weight_bytes for layer in cost.layers] == [F4 * 16, 0]
    assert cost.weight_bytes == F4 * 16


def test_weights_that_are_turned_or_unpacked_first_belong_to_the_layer_they_reach():
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["u"], name="unpack"),
        helper.make_node("Transpose", ["u"], ["v"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "v"], ["y"], name="product"),
    ]
    made = model(
        nodes,
        inputs=[value("x", "batch", 4)],
        outputs=[value("y", "batch", 3)],
        weights=[
            weight("w", 3, 4, dtype=np.int8),
            numpy_helper.from_array(np.float32(0.5), "s"),
        ],
    )
    (layer,) = graph.cost_of(made, batches=True).layers
    assert (layer.weight_bytes, layer.precision) == (12, "int8")
    (operator,) = graph_profile.profile(made, batches=True)
    assert operator.name == "product"


def test_a_table_of_which_rows_are_picked_need_not_be_read_whole():
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["row"], name="pick"),
        helper.make_node("MatMul", ["row", "w"], ["y"], name="product"),
    ]
    made = model(
        nodes,
        inputs=[helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 1])],
        outputs=[value("y", "batch", 1, 2)],
        weights=[weight("table", 1000, 4), weight("w", 4, 2)],
    )
    cost = graph.cost_of(made, batches=True)
    assert cost.weight_bytes == F4 * 8
    assert cost.parameters == 4008


def test_other_free_axes_are_settled_by_the_caller():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    made = model(
        nodes,
        inputs=[value("x", "batch", "length", 4)],
        outputs=[value("y", "batch", "length", 2)],
        weights=[weight("w", 4, 2)],
    )
    with pytest.raises(InvalidInput, match=r"axis 1 of input 'x' is free \(length\)"):
        graph.cost_of(made, batches=True)
    cost = graph.cost_of(made, batches=True, sizes={"x": (1, 10, 4)})
    assert cost.multiply_adds_per_sample == 10 * 4 * 2
    for sizes, reason in (
        ({"z": (1, 10, 4)}, "no input 'z'; there are x"),
        ({"x": (1, 10)}, r"has 3 axes, received the shape \[1, 10\]"),
        ({"x": (1, 10, 5)}, r"axis 2 of input 'x' is 4, received the shape \[1, 10, 5\]"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            graph.cost_of(made, batches=True, sizes=sizes)


def test_networks_without_weights_cannot_be_mistaken_for_whole_ones():
    made = networks.lenet5(weights=False)
    assert not any(tensor.raw_data for tensor in made.graph.initializer if len(tensor.dims) > 1)
    onnx.checker.check_model(networks.lenet5())
