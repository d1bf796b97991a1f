"""The proof refuses what it should."""

import numpy as np
import pytest

from export.parity import accuracy, prove
from ridgeline.errors import InvalidInput, ParityFailed

GOLDEN = {"x": np.arange(20, dtype=np.float32).reshape(10, 2)}


def answers(factor=1.0, *, at_batch_size=None):
    """An implementation that multiplies by two, or by something else at one batch size."""

    def run(inputs):
        off = at_batch_size in (None, len(inputs["x"]))
        return {"y": inputs["x"] * np.float32(2 * (factor if off else 1.0))}

    return run


def test_equal_implementations_have_no_error():
    proof = prove(answers(), answers(), golden=GOLDEN, batch_sizes=[1, 3])
    assert (proof.max_absolute_error, proof.max_relative_error) == (0.0, 0.0)
    assert (proof.top1_agreement, proof.samples) == (1.0, 10)
    assert proof.to_table()["batch_sizes"] == (1, 3)


def test_the_errors_are_those_of_the_worst_output_and_batch():
    proof = prove(answers(), answers(1.01), golden=GOLDEN, batch_sizes=[10], relative_tolerance=0.1)
    assert proof.max_absolute_error == pytest.approx(0.01 * 38, rel=1e-4)
    assert proof.max_relative_error == pytest.approx(0.01, rel=1e-4)


def test_an_error_at_one_batch_size_only_is_found():
    with pytest.raises(ParityFailed, match=r"output 'y' differs at batch size 3: relative error"):
        prove(answers(), answers(1.001, at_batch_size=3), golden=GOLDEN, batch_sizes=[1, 3])


def test_another_most_probable_class_fails_however_small_the_error():
    close = {"x": np.array([[1.0, 1.0 + 1e-6]], dtype=np.float32)}
    swapped = {"y": close["x"][:, ::-1]}
    with pytest.raises(ParityFailed, match="most probable class differs for 1 of 1 samples"):
        prove(lambda inputs: {"y": inputs["x"]}, lambda _: swapped, golden=close, batch_sizes=[1])


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
        prove(answers(), lambda _: {"y": wrong}, golden=GOLDEN, batch_sizes=[10])


def test_accuracy_counts_the_largest_element():
    inputs = {"x": np.array([[1, 2], [2, 1], [5, 6]], dtype=np.float32)}
    found = accuracy(answers(), inputs=inputs, labels=np.array([1, 1, 1]), batch_size=2)
    assert (found.correct, found.samples) == (2, 3)
    assert found.to_table()["accuracy"] == pytest.approx(2 / 3)


def test_inputs_of_different_length_are_refused():
    uneven = {"x": np.zeros((2, 1)), "z": np.zeros((3, 1))}
    with pytest.raises(InvalidInput, match=r"equally many samples, received \[2, 3\]"):
        prove(answers(), answers(), golden=uneven, batch_sizes=[1])
