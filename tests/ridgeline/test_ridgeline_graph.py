"""FLOPs, counted from graphs and checked by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ridgeline import graph
from ridgeline.errors import CorruptData, InvalidInput

OPSET = helper.make_opsetid("", 18)


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, list(shape))


def weight(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name)


def model(nodes, *, inputs, outputs, weights=()):
    made = helper.make_graph(nodes, "test", inputs, outputs, list(weights))
    return helper.make_model(made, opset_imports=[OPSET], ir_version=8)


def one(operator, x, y, weights, **attributes):
    """A model of one operator between x and y; y's shape is what inference must find."""
    names = ["x", *(tensor.name for tensor in weights)]
    node = helper.make_node(operator, names, ["y"], name="node", **attributes)
    return model([node], inputs=[value("x", *x)], outputs=[value("y", *y)], weights=weights)


@pytest.fixture(scope="module")
def lenet5():
    """LeNet-5 at 32 x 32, as the course gives it."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"]),
        helper.make_node("Tanh", ["c1"], ["t1"]),
        helper.make_node("AveragePool", ["t1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"]),
        helper.make_node("Tanh", ["c2"], ["t2"]),
        helper.make_node("AveragePool", ["t2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p2", "w3", "b3"], ["c3"]),
        helper.make_node("Flatten", ["c3"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w4", "b4"], ["dense"]),
        helper.make_node("Gemm", ["dense", "w5", "b5"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    weights = [
        *(weight("w1", 6, 1, 5, 5), weight("b1", 6)),
        *(weight("w2", 16, 6, 5, 5), weight("b2", 16)),
        *(weight("w3", 120, 16, 5, 5), weight("b3", 120)),
        *(weight("w4", 120, 84), weight("b4", 84)),
        *(weight("w5", 84, 10), weight("b5", 10)),
    ]
    return model(
        nodes,
        inputs=[value("image", "batch", 1, 32, 32)],
        outputs=[value("probabilities", "batch", 10)],
        weights=weights,
    )


def test_lenet5_has_416520_multiply_adds(lenet5):
    by_hand = (
        28 * 28 * 6 * 5 * 5 * 1
        + 10 * 10 * 16 * 5 * 5 * 6
        + 1 * 1 * 120 * 5 * 5 * 16
        + 120 * 84
        + 84 * 10
    )
    cost = graph.cost_of(lenet5, batches=True)
    assert cost.multiply_adds_per_sample == by_hand == 416_520
    assert cost.flops_per_sample == 833_040


def test_lenet5_has_61706_parameters_and_moves_these_bytes(lenet5):
    by_hand = (25 + 1) * 6 + (150 + 1) * 16 + (400 + 1) * 120 + 121 * 84 + 85 * 10
    cost = graph.cost_of(lenet5, batches=True)
    assert cost.parameters == by_hand == 61_706
    assert cost.weight_bytes == 4 * 61_706
    assert (cost.input_bytes_per_sample, cost.output_bytes_per_sample) == (4 * 32 * 32, 4 * 10)


def test_layers_are_told_in_the_order_of_the_graph(lenet5):
    found = graph.layers(lenet5, batches=True)
    assert [layer.operator for layer in found] == ["Conv"] * 3 + ["Gemm"] * 2
    assert [layer.multiply_adds for layer in found] == [117_600, 240_000, 48_000, 10_080, 840]
    assert found[1].output_shape == (1, 16, 10, 10)


@pytest.mark.parametrize(
    ("made", "by_hand"),
    [
        # 8 output channels in 2 groups, each summing over 4 / 2 input channels
        (
            one("Conv", ("N", 4, 6, 6), ("N", 8, 4, 4), [weight("w", 8, 2, 3, 3)], group=2),
            8 * 4 * 4 * 2 * 3 * 3,
        ),
        (one("Gemm", ("N", 5), ("N", 7), [weight("w", 7, 5)], transB=1), 5 * 7),
        (one("MatMul", ("N", 3, 4, 5), ("N", 3, 4, 6), [weight("w", 5, 6)]), 3 * 4 * 5 * 6),
        # every input element is spread over 2 x 2 places of 3 output channels
        (
            one("ConvTranspose", ("N", 4, 5, 5), ("N", 3, 6, 6), [weight("w", 4, 3, 2, 2)]),
            4 * 5 * 5 * 3 * 2 * 2,
        ),
    ],
    ids=["grouped convolution", "Gemm, transposed", "batched MatMul", "transposed convolution"],
)
def test_operators_are_counted_as_by_hand(made, by_hand):
    assert graph.cost_of(made, batches=True).multiply_adds_per_sample == by_hand


@pytest.mark.parametrize(("operator", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_a_recurrent_cell_multiplies_input_and_state_once_per_gate_and_step(operator, gates):
    steps, size, hidden = 7, 5, 6
    node = helper.make_node(operator, ["x", "w", "r"], ["y"], hidden_size=hidden)
    made = model(
        [node],
        inputs=[value("x", steps, 1, size)],
        outputs=[value("y", steps, 1, 1, hidden)],
        weights=[weight("w", 1, gates * hidden, size), weight("r", 1, gates * hidden, hidden)],
    )
    expected = steps * gates * hidden * (size + hidden)
    assert graph.cost_of(made, batches=False).multiply_adds_per_sample == expected


def test_whole_number_initializers_are_no_weights():
    shape = numpy_helper.from_array(np.array([0, 4], dtype=np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    made = model([node], inputs=[value("x", "N", 4)], outputs=[value("y", "N", 4)], weights=[shape])
    cost = graph.cost_of(made, batches=True)
    assert (cost.parameters, cost.weight_bytes, cost.multiply_adds_per_sample) == (0, 0, 0)


def test_weights_that_an_old_graph_lists_as_inputs_are_no_inputs():
    made = one("MatMul", ("N", 4), ("N", 3), [weight("w", 4, 3)])
    made.graph.input.append(value("w", 4, 3))
    assert graph.cost_of(made, batches=True).input_bytes_per_sample == 16


def test_texts_count_no_bytes():
    node = helper.make_node("Identity", ["x"], ["y"])
    kind = TensorProto.STRING
    made = model(
        [node], inputs=[value("x", "N", 2, kind=kind)], outputs=[value("y", "N", 2, kind=kind)]
    )
    assert graph.cost_of(made, batches=True).input_bytes_per_sample == 0


def test_a_free_axis_beside_the_batch_leaves_the_cost_open():
    made = one("MatMul", ("N", "T", 4), ("N", "T", 3), [weight("w", 4, 3)])
    with pytest.raises(InvalidInput, match="axis 1 of input 'x' is free"):
        graph.cost_of(made, batches=True)


def test_a_shape_that_depends_on_values_leaves_the_cost_open():
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"], name="product"),
    ]
    made = model(
        nodes,
        inputs=[value("x", 3, 4)],
        outputs=[value("y", None, 5)],
        weights=[weight("w", 2, 5)],
    )
    with pytest.raises(InvalidInput, match="is open"):
        graph.cost_of(made, batches=False)


def test_the_given_model_is_left_as_it_was(lenet5):
    before = lenet5.SerializeToString()
    graph.cost_of(lenet5, batches=True)
    assert lenet5.SerializeToString() == before


def test_garbage_is_no_model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"garbage")
    with pytest.raises(CorruptData, match="is not an ONNX model"):
        graph.load(path)


def test_a_saved_model_is_loaded(tmp_path, lenet5):
    onnx.save(lenet5, tmp_path / "model.onnx")
    assert graph.load(tmp_path / "model.onnx").graph.name == "test"
