"""The proof refuses what it should."""

import contextlib

import numpy as np
import pytest
from onnx import TensorProto, helper

from export.parity import accuracy, prove, runner
from ridgeline.errors import InvalidInput, ParityFailed, Unsupported

TOLERANCE = 1e-5
GOLDEN = {"x": np.arange(20, dtype=np.float32).reshape(10, 2)}


def answers(factor=1.0, *, at_batch_size=None):
    """An implementation that multiplies by two, or by something else at one batch size."""

    def run(inputs):
        off = at_batch_size in (None, len(inputs["x"]))
        return {"y": inputs["x"] * np.float32(2 * (factor if off else 1.0))}

    return run


def prove_within(reference, exported, *, golden=GOLDEN, batch_sizes=(1,)):
    return prove(
        reference,
        exported,
        golden=golden,
        batch_sizes=batch_sizes,
        relative_tolerance=TOLERANCE,
    )


def test_equal_implementations_have_no_error():
    proof = prove(
        answers(), answers(), golden=GOLDEN, batch_sizes=[1, 3], relative_tolerance=TOLERANCE
    )
    assert (proof.max_absolute_error, proof.max_relative_error) == (0.0, 0.0)
    assert (proof.top1_agreement, proof.samples) == (1.0, 10)
    assert proof.to_table()["batch_sizes"] == (1, 3)


def test_the_errors_are_those_of_the_worst_output_and_batch():
    proof = prove(answers(), answers(1.01), golden=GOLDEN, batch_sizes=[10], relative_tolerance=0.1)
    assert proof.max_absolute_error == pytest.approx(0.01 * 38, rel=1e-4)
    assert proof.max_relative_error == pytest.approx(0.01, rel=1e-4)


def test_an_error_at_one_batch_size_only_is_found():
    with pytest.raises(ParityFailed, match=r"output 'y' differs at batch size 3: relative error"):
        prove_within(answers(), answers(1.001, at_batch_size=3), batch_sizes=[1, 3])


def test_another_most_probable_class_fails_however_small_the_error():
    close = {"x": np.array([[1.0, 1.0 + 1e-6]], dtype=np.float32)}
    swapped = {"y": close["x"][:, ::-1]}
    with pytest.raises(
        ParityFailed, match="class of output 'y' differs at batch size 1 for 1 of 1"
    ):
        prove_within(lambda inputs: {"y": inputs["x"]}, lambda _: swapped, golden=close)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.zeros((10, 3), dtype=np.float32), r"is float32 \[10, 3\], expected float32 \[10, 2\]"),
        (np.zeros((10, 2), dtype=np.float64), "is float64"),
        (np.full((10, 2), np.nan, dtype=np.float32), "has other NaN or infinity"),
    ],
)
def test_another_shape_or_type_or_nan_fails(wrong, told):
    with pytest.raises(ParityFailed, match=told):
        prove_within(answers(), lambda _: {"y": wrong}, batch_sizes=[10])


def test_accuracy_counts_the_largest_element():
    inputs = {"x": np.array([[1, 2], [2, 1], [5, 6]], dtype=np.float32)}
    found = accuracy(answers(), inputs=inputs, labels=np.array([1, 1, 1]), output="y", batch_size=2)
    assert (found.correct, found.samples) == (2, 3)
    assert found.to_table()["accuracy"] == pytest.approx(2 / 3)


def test_inputs_of_different_length_are_refused():
    uneven = {"x": np.zeros((2, 1)), "z": np.zeros((3, 1))}
    with pytest.raises(InvalidInput, match=r"equally many samples, received \[2, 3\]"):
        prove_within(answers(), answers(), golden=uneven)


def constant(*rows):
    """An implementation that answers the same whatever it is asked."""
    return lambda _: {"y": np.array(rows, dtype=np.float32)}


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_beside_nan_or_infinity_the_other_elements_are_still_compared(strange):
    row = {"x": np.zeros((1, 2), dtype=np.float32)}
    proof = prove_within(constant([strange, 2.0]), constant([strange, 2.0]), golden=row)
    assert (proof.max_absolute_error, proof.max_relative_error) == (0.0, 0.0)
    with pytest.raises(ParityFailed, match=r"relative error 5\.00e-01"):
        prove_within(constant([strange, 2.0]), constant([strange, 3.0]), golden=row)


@pytest.mark.parametrize("other", [-np.inf, np.nan, 1.0])
def test_another_infinity_fails(other):
    row = {"x": np.zeros((1, 2), dtype=np.float32)}
    with pytest.raises(ParityFailed, match="has other NaN or infinity"):
        prove_within(constant([np.inf, 2.0]), constant([other, 2.0]), golden=row)


def test_a_batch_larger_than_the_golden_inputs_is_run_at_its_full_size():
    sizes = []

    def watched(inputs):
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"]}

    proof = prove_within(watched, lambda inputs: {"y": inputs["x"]}, batch_sizes=[25])
    assert sizes == [25]
    assert (proof.batch_sizes, proof.samples) == ((25,), 10)


def test_the_worst_output_is_the_one_that_is_told():
    golden = {"x": np.ones((1, 2), dtype=np.float32)}

    def reference(inputs):
        return {"first": inputs["x"], "second": inputs["x"]}

    def exported(inputs):
        return {"first": inputs["x"] * np.float32(1.1), "second": inputs["x"] * np.float32(1.5)}

    with pytest.raises(ParityFailed, match=r"output 'second' differs .* 5\.00e-01"):
        prove_within(reference, exported, golden=golden)


def test_rows_without_elements_agree():
    empty = {"x": np.zeros((2, 0), dtype=np.float32)}
    assert prove_within(answers(), answers(), golden=empty).top1_agreement == 1.0


def test_there_is_no_proof_for_texts():
    texts = {"y": np.array([[b"a"]], dtype=object)}
    with pytest.raises(Unsupported, match="output 'y' at batch size 1 is text"):
        prove_within(lambda _: texts, lambda _: texts)


def graph(operator, *, kind=TensorProto.FLOAT):
    """y = operator(x), over x of any shape."""
    tensors = [helper.make_tensor_value_info(name, kind, None) for name in ("x", "y")]
    made = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])], "g", *map(list, zip(tensors))
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    ).SerializeToString()


def test_a_graph_that_onnx_runtime_does_not_load_is_told_with_its_model():
    with pytest.raises(Unsupported, match=r"cannot load the graph of 'odd': .*Tan"):
        runner(graph("Tan", kind=TensorProto.DOUBLE), name="odd")


def test_a_graph_that_fails_on_inputs_is_told_with_their_shapes():
    run = runner(graph("Det"), name="odd")
    with pytest.raises(ParityFailed, match=r"cannot run 'odd' on inputs of the shapes .*\[2, 3\]"):
        run({"x": np.zeros((2, 3), dtype=np.float32)})


def test_places_of_one_value_tie_and_another_value_does_not():
    expected = np.array([[1.0, 3.0, 3.0], [1.0, 3.0, 2.9]], dtype=np.float32)
    found = np.array([[1.0, 3.0, 3.0000002], [1.0, 2.9, 3.0]], dtype=np.float32)
    for rows, agrees in ((slice(0, 1), True), (slice(1, 2), False)):
        golden = {"x": expected[rows]}
        answers = {"reference": expected[rows], "exported": found[rows]}
        runs = {name: (lambda _inputs, y=y: {"y": y}) for name, y in answers.items()}
        check = contextlib.nullcontext() if agrees else pytest.raises(ParityFailed, match="differs")
        with check:
            prove(
                runs["reference"],
                runs["exported"],
                golden=golden,
                batch_sizes=[1],
                relative_tolerance=0.1,
            )
