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
        # the 4 is summed over, once for each of the 3 rows and 5 columns
        (
            one("Einsum", ("N", 3, 4), ("N", 3, 5), [weight("w", 4, 5)], equation="abc, cd->abd"),
            3 * 4 * 5,
        ),
        (one("Einsum", ("N", 3, 4), ("N", 4, 3), [], equation="abc->acb"), 0),
    ],
    ids=[
        *("grouped convolution", "Gemm, transposed", "batched MatMul", "transposed convolution"),
        *("Einsum of two factors", "Einsum of one factor"),
    ],
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


BYTE = TensorProto.UINT8


def byte_weight(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, dtype=np.uint8), name)


def quantised(operator, names, *, x, y, weights, kind=BYTE):
    node = helper.make_node(operator, names, ["y"])
    scales = [numpy_helper.from_array(np.float32(0.1), "s"), byte_weight("z")]
    return model(
        [node],
        inputs=[value("x", *x, kind=BYTE)],
        outputs=[value("y", *y, kind=kind)],
        weights=[*weights, *scales],
    )


@pytest.mark.parametrize(
    ("made", "by_hand"),
    [
        (
            quantised(
                "MatMulInteger",
                ["x", "w"],
                x=("N", 4),
                y=("N", 5),
                weights=[byte_weight("w", 4, 5)],
                kind=TensorProto.INT32,
            ),
            4 * 5,
        ),
        (
            quantised(
                "QLinearMatMul",
                ["x", "s", "z", "w", "s", "z", "s", "z"],
                x=("N", 4),
                y=("N", 5),
                weights=[byte_weight("w", 4, 5)],
            ),
            4 * 5,
        ),
        (
            quantised(
                "ConvInteger",
                ["x", "w"],
                x=("N", 3, 6, 6),
                y=("N", 8, 4, 4),
                weights=[byte_weight("w", 8, 3, 3, 3)],
                kind=TensorProto.INT32,
            ),
            8 * 4 * 4 * 3 * 3 * 3,
        ),
        (
            quantised(
                "QLinearConv",
                ["x", "s", "z", "w", "s", "z", "s", "z"],
                x=("N", 3, 6, 6),
                y=("N", 8, 4, 4),
                weights=[byte_weight("w", 8, 3, 3, 3)],
            ),
            8 * 4 * 4 * 3 * 3 * 3,
        ),
    ],
    ids=["MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv"],
)
def test_whole_number_operators_are_counted_and_their_weights_take_a_byte_each(made, by_hand):
    cost = graph.cost_of(made, batches=True)
    assert cost.multiply_adds_per_sample == by_hand
    assert cost.weight_bytes == cost.parameters == np.prod(made.graph.initializer[0].dims)


def test_an_einsum_of_three_factors_leaves_the_cost_open():
    made = one(
        "Einsum",
        ("N", 3),
        ("N", 5),
        [weight("w", 3, 4), weight("v", 4, 5)],
        equation="ab,bc,cd->ad",
    )
    with pytest.raises(InvalidInput, match="expected one or two factors"):
        graph.cost_of(made, batches=True)


def loop(*, domain=""):
    """Multiplies by w three times, in the body of a Loop."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["row", "w"], ["product"], name="inner", domain=domain),
            helper.make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [
            value("i", kind=TensorProto.INT64),
            value("going", kind=TensorProto.BOOL),
            value("row", 1, 4),
        ],
        [value("on", kind=TensorProto.BOOL), value("product", 1, 4)],
    )
    times = numpy_helper.from_array(np.array(3), "times")
    return model(
        [helper.make_node("Loop", ["times", "", "x"], ["y"], name="repeat", body=body)],
        inputs=[value("x", "N", 4)],
        outputs=[value("y", "N", 4)],
        weights=[times, weight("w", 4, 4)],
    )


def test_a_product_in_the_body_of_a_loop_leaves_the_cost_open():
    with pytest.raises(InvalidInput, match=r"cost of Loop 'repeat' is open: MatMul 'inner' in its"):
        graph.cost_of(loop(), batches=True)


@pytest.mark.parametrize(
    ("operator", "domain", "told"),
    [
        ("FusedConv", "com.microsoft", "no count is known for this operator of com.microsoft"),
        ("Attention", "", "no count is known for this operator of ONNX"),
    ],
)
def test_an_operator_that_may_multiply_unseen_leaves_the_cost_open(operator, domain, told):
    made = model(
        [
            helper.make_node(operator, ["x", "x", "x"], ["y"], domain=domain),
            helper.make_node("Reshape", ["y", "shape"], ["z"]),
        ],
        inputs=[value("x", "N", 4, 4)],
        outputs=[value("z", "N", 16)],
        weights=[numpy_helper.from_array(np.array([1, 16]), "shape")],
    )
    with pytest.raises(InvalidInput, match=told):
        graph.cost_of(made, batches=True)


def test_a_function_of_the_model_is_counted_by_what_it_does():
    local = helper.make_opsetid("local", 1)
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    made = one("Product", ("N", 4), ("N", 5), [weight("w", 4, 5)], domain="local")
    made.opset_import.append(local)
    made.functions.append(
        helper.make_function("local", "Product", ["a", "b"], ["c"], body, [OPSET])
    )
    assert graph.cost_of(made, batches=True).multiply_adds_per_sample == 20


def test_weights_in_constants_count_and_unused_ones_and_single_numbers_do_not():
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight("", 4, 5)),
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["y"]),
    ]
    made = model(
        nodes,
        inputs=[value("x", "N", 4)],
        outputs=[value("y", "N", 5)],
        weights=[numpy_helper.from_array(np.float32(0.5), "half"), weight("unused", 100, 100)],
    )
    cost = graph.cost_of(made, batches=True)
    assert (cost.parameters, cost.weight_bytes, cost.multiply_adds_per_sample) == (20, 80, 20)


def test_a_weight_that_only_a_body_reads_is_used():
    made = loop()
    made.graph.node[0].attribute[0].g.node[0].op_type = "Mul"
    made.graph.node.append(helper.make_node("Identity", ["x"], ["z"]))
    made.graph.output[0].name = "z"
    assert graph.cost_of(made, batches=True).parameters == 16


def test_a_large_weight_is_counted_without_a_copy_of_it():
    """Its values are never read: none are there."""
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[200_000, 100_000])
    made = one("MatMul", ("N", 200_000), ("N", 100_000), [huge])
    cost = graph.cost_of(made, batches=True)
    assert cost.multiply_adds_per_sample == cost.parameters == 20_000_000_000
    assert cost.weight_bytes == 80_000_000_000


def test_a_graph_that_fixes_more_rows_than_one_leaves_the_cost_of_a_sample_open():
    shape = numpy_helper.from_array(np.array([8, 4], dtype=np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    made = model([node], inputs=[value("x", 8, 4)], outputs=[value("y", 8, 4)], weights=[shape])
    with pytest.raises(InvalidInput, match=r"output 'y' has the shape \[8, 4\]"):
        graph.cost_of(made, batches=True)


def test_a_size_of_minus_one_is_a_free_axis():
    node = helper.make_node("Identity", ["x"], ["y"])
    made = model([node], inputs=[value("x", "N", -1)], outputs=[value("y", "N", -1)])
    with pytest.raises(InvalidInput, match="axis 1 of input 'x' is free"):
        graph.cost_of(made, batches=True)


def test_an_input_without_a_shape_leaves_the_cost_open():
    node = helper.make_node("Identity", ["x"], ["y"])
    nothing = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    made = model([node], inputs=[nothing], outputs=[value("y", "N", 2)])
    with pytest.raises(InvalidInput, match="the shape of input 'x' is unknown"):
        graph.cost_of(made, batches=True)


def test_an_input_that_is_no_tensor_leaves_the_cost_open():
    node = helper.make_node("SequenceLength", ["x"], ["y"])
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    made = model([node], inputs=[sequence], outputs=[value("y", kind=TensorProto.INT64)])
    with pytest.raises(InvalidInput, match="the shape of input 'x' is unknown"):
        graph.cost_of(made, batches=False)


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


def test_sizes_that_a_graph_computes_from_sizes_are_followed():
    """As tf2onnx writes a dense layer over several axes; ReduceProd is no operator of inference."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "zero", "two", "zero"], ["outer"]),
        helper.make_node("ReduceProd", ["outer"], ["many"], keepdims=1),
        helper.make_node("Concat", ["many", "width"], ["flat_sizes"], axis=0),
        helper.make_node("Reshape", ["x", "flat_sizes"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Concat", ["outer", "units"], ["back"], axis=0),
        helper.make_node("Reshape", ["product", "back"], ["y"]),
    ]
    numbers = {"zero": 0, "two": 2, "width": 4, "units": 3}
    whole = [numpy_helper.from_array(np.array([number]), name) for name, number in numbers.items()]
    made = model(
        nodes,
        inputs=[value("x", "batch", 5, 4)],
        outputs=[value("y", "batch", 5, 3)],
        weights=[*whole, weight("w", 4, 3)],
    )
    cost = graph.cost_of(made, batches=True)
    assert cost.multiply_adds_per_sample == 5 * 4 * 3
    assert (cost.parameters, cost.output_bytes_per_sample) == (12, 60)
    assert [layer.output_shape for layer in graph.layers(made, batches=True, rows=2)] == [(10, 3)]


def chosen_rows(first_of_output):
    """Rows of a product that data choose, as non-maximum suppression does."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("NonZero", ["product"], ["places"]),
        helper.make_node("Cast", ["places"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["whole"], ["y"]),
    ]
    return model(
        nodes,
        inputs=[value("x", "batch", 4)],
        outputs=[value("y", first_of_output, 2)],
        weights=[weight("w", 4, 3)],
    )


def test_an_output_whose_size_data_decide_has_the_size_that_the_graph_tells():
    cost = graph.cost_of(chosen_rows("batch"), batches=True)
    assert (cost.multiply_adds_per_sample, cost.output_bytes_per_sample) == (12, 8)


def test_such_an_output_with_a_free_axis_of_its_own_leaves_the_cost_open():
    with pytest.raises(InvalidInput, match="the shape of output 'y' is unknown"):
        graph.cost_of(chosen_rows("found"), batches=True)
