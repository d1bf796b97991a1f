"""The classification extension: values, indices, labels, rows."""

import numpy as np
import pytest

from ridgeline.errors import InvalidInput
from serving.protocol.classification import classified

LABELS = ("cat", "dog", "bird")


def _classified(values, *, count=2, batches=True, labels=LABELS):
    array = classified(np.array(values), count=count, labels=labels, batches=batches, name="y")
    return array.tolist()


def test_each_row_of_a_batch_is_classified_for_itself():
    rows = np.float32([[0.25, 8.5, -1], [3, 2, 1]])

    assert _classified(rows) == [
        [b"8.500000:1:dog", b"0.250000:0:cat"],
        [b"3.000000:0:cat", b"2.000000:1:dog"],
    ]


def test_without_a_batch_axis_all_elements_are_one_row():
    assert _classified(np.int32([[5, -7], [9, 1]]), batches=False, labels=()) == [b"9:2", b"5:0"]


def test_further_axes_count_as_one_and_no_more_is_given_than_there_is():
    assert _classified(np.uint8([[[1], [2]]]), count=9) == [[b"2:1:dog", b"1:0:cat"]]


def test_equal_values_keep_their_order_and_nan_is_last():
    values = np.array([[np.nan, 0.0, 0.0, -np.inf]])

    assert _classified(values, count=4)[0] == [
        b"0.000000:1:dog",
        b"0.000000:2:bird",
        b"nan:0:cat",
        b"-inf:3",
    ]


def test_least_numbers_and_empty_rows_have_an_answer():
    low = np.iinfo(np.int64).min
    assert _classified(np.int64([[low, 0]]), labels=()) == [[b"0:1", f"{low}:0".encode()]]
    assert _classified(np.zeros((2, 0), np.float32)) == [[], []]
    assert _classified(np.zeros((0, 2), np.float32)) == []


@pytest.mark.parametrize("dtype", [np.float16, np.bool_, object])
def test_what_has_no_order_of_numbers_is_refused(dtype):
    with pytest.raises(InvalidInput, match="unsupported type"):
        _classified(np.zeros((1, 2), dtype))
