"""Tensors on the wire: whatever a client can encode comes back; whatever else is refused."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import InvalidInput
from serving.protocol.tensors import (
    checked_shape,
    from_numbers,
    from_raw,
    split_bytes,
    to_numbers,
    to_raw,
)

FEW = settings(max_examples=60, deadline=None)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw, *, names=tuple(DATATYPES), text=False):
    """A datatype, and an array of it; every bit pattern of numbers, every byte string.

    With `text`, the elements of BYTES are UTF-8.
    """
    name = draw(st.sampled_from(names))
    shape = draw(SHAPES)
    count = math.prod(shape)
    if name == "BYTES":
        element = st.text(max_size=5).map(str.encode) if text else st.binary(max_size=5)
        array = np.empty(count, dtype=np.object_)
        array[:] = draw(st.lists(element, min_size=count, max_size=count))
    else:
        dtype = DATATYPES[name].numpy
        size = count * dtype.itemsize
        data = draw(st.binary(min_size=size, max_size=size))
        array = (
            np.frombuffer(data, dtype=np.uint8) % 2 == 1
            if name == "BOOL"
            else np.frombuffer(data, dtype)
        )
    return name, array.reshape(shape)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal in type, shape and every bit."""
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    if left.dtype.kind == "O":
        return left.tolist() == right.tolist()
    return left.tobytes() == right.tobytes()


@given(tensors())
@FEW
def test_every_tensor_comes_back_from_its_raw_bytes(tensor):
    name, array = tensor

    back = from_raw(to_raw(array), datatype_name=name, shape=array.shape, name="x")

    assert same(back, array)


@given(tensors(), st.integers(1, 9))
@FEW
def test_raw_bytes_may_begin_anywhere_in_a_body_and_the_array_is_aligned(tensor, offset):
    name, array = tensor
    body = memoryview(b"{" * offset + to_raw(array))[offset:]

    back = from_raw(body, datatype_name=name, shape=array.shape, name="x")

    assert same(back, array)
    assert back.flags.aligned


_NUMBERS = tuple(name for name in DATATYPES if name not in ("FP16", "BF16"))


@given(tensors(names=_NUMBERS, text=True), st.booleans())
@FEW
def test_every_tensor_comes_back_from_its_list_flat_or_nested(tensor, nested):
    name, array = tensor
    data = array.tolist() if nested and array.ndim else array.ravel().tolist()

    back = from_numbers(data, datatype_name=name, shape=array.shape, name="x")

    nan = (
        array.dtype.kind == "f" and np.isnan(array).any()
    )  # a NaN is a NaN, but its bits may change
    assert np.array_equal(back, array, equal_nan=True) if nan else same(back, array)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5))
@example([1, 2**63])  # numpy alone would make floats of these two
@FEW
def test_large_whole_numbers_keep_every_digit(values):
    assert (
        from_numbers(values, datatype_name="UINT64", shape=[len(values)], name="x").tolist()
        == values
    )


@given(tensors(names=_NUMBERS, text=True))
@FEW
def test_what_json_can_carry_comes_back_from_its_numbers(tensor):
    name, array = tensor
    if array.dtype.kind == "f":
        array = np.nan_to_num(array)

    numbers = list(to_numbers(array, name="y"))

    assert same(
        from_numbers([_plain(n) for n in numbers], datatype_name=name, shape=array.shape, name="x"),
        array,
    )


def _plain(element):
    return element.item() if isinstance(element, np.generic) else element


def read_or_refused(read):
    """What `read` gives; None where it refuses the input, which it must name."""
    try:
        return read()
    except InvalidInput as error:
        refusal = str(error)
    assert "'x'" in refusal
    return None


@given(
    st.binary(max_size=40),
    st.sampled_from([*DATATYPES, "FP128", ""]),
    st.lists(st.integers(-1, 2**63), max_size=4),
)
@example(b"", "FP32", [2**31, 2**31])
@example(b"", "FP32", [0, 2**62, 2**62])  # no element at all, but numpy cannot count to its sizes
@example(b"", "BYTES", [2**63])
@example(b"\xff\xff\xff\xff", "BYTES", [1])
@example(b"\x00\x00\x00", "BYTES", [1])
@settings(max_examples=300, deadline=None)
def test_raw_bytes_are_read_or_refused_but_nothing_else_is_raised(data, datatype, shape):
    def read():
        sizes = checked_shape(shape, name="x")
        return from_raw(data, datatype_name=datatype, shape=sizes, name="x")

    array = read_or_refused(read)

    if array is not None:
        assert list(array.shape) == shape
        assert array.dtype == DATATYPES[datatype].numpy


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4), st.sampled_from([*DATATYPES, "FP128"]), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_lists_are_read_or_refused_but_nothing_else_is_raised(data, datatype, count):
    array = read_or_refused(
        lambda: from_numbers(data, datatype_name=datatype, shape=[count], name="x")
    )

    if array is not None:
        assert array.shape == (count,)
        assert array.dtype == DATATYPES[datatype].numpy


@given(st.lists(JSON, max_size=4))
@FEW
def test_shapes_are_whole_numbers_or_refused(shape):
    sizes = read_or_refused(lambda: checked_shape(shape, name="x"))

    assert sizes is None or all(type(size) is int and size >= 0 for size in sizes)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([2**31, 2**31], r"input 'x' of shape \[2147483648, 2147483648\] is too large"),
        ([0, 2**62, 2**62], "too large"),
        ([-1], r"whole numbers, not negative, received \[-1\]"),
        ([True], "whole numbers"),
        ([1.0], "whole numbers"),
        ([None], "whole numbers"),
        ([1] * 65, "has 65 axes, at most 64"),
    ],
)
def test_impossible_shapes_are_refused(shape, words):
    with pytest.raises(InvalidInput, match=words):
        checked_shape(shape, name="x")


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "words"),
    [
        ([300], "UINT8", [1], "'x' does not fit UINT8, received 300"),
        ([-1], "UINT64", [1], "does not fit UINT64, received -1"),
        ([2**63], "INT64", [1], f"does not fit INT64, received {2**63}"),
        ([1.0], "INT32", [1], "does not fit INT32, received 1.0"),
        ([True], "INT32", [1], "does not fit INT32, received True"),
        ([1], "BOOL", [1], "does not fit BOOL, received 1"),
        ([1e39], "FP32", [1], "does not fit FP32"),
        (["1"], "FP32", [1], "does not fit FP32, received '1'"),
        ([None], "FP64", [1], "does not fit FP64, received None"),
        ([{}], "FP64", [1], "does not fit FP64"),
        ([1], "BYTES", [1], "does not fit BYTES, received 1"),
        ([1.0], "FP16", [1], "FP16 data of input 'x' can only be sent as binary data"),
        ([1.0], "BF16", [1], "BF16 data of input 'x' can only be sent as binary data"),
        ([1.0], "FP8", [1], "input 'x': expected a datatype of the protocol, received FP8"),
        ([1, 2, 3], "FP32", [2, 2], r"shape \[2, 2\] takes 4 elements, received 3"),
        ([[1, 2], [3]], "FP32", [3], "'x' is ragged"),
        ([[1], 2], "FP32", [2], "'x' is ragged"),
    ],
)
def test_lists_that_do_not_fit_say_what_was_received(data, datatype, shape, words):
    with pytest.raises(InvalidInput, match=words):
        from_numbers(data, datatype_name=datatype, shape=shape, name="x")


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "words"),
    [
        (b"1234567", "FP32", [2], r"input 'x': FP32 \[2\] takes 8 bytes, received 7"),
        (b"\x05\x00\x00\x00abc", "BYTES", [1], "element 0 of BYTES announces 5 bytes, 3 are left"),
        (b"\x05\x00", "BYTES", [1], "cut off"),
        (b"", "BYTES", [1], "expected 1 elements in the BYTES input 'x', received 0"),
        (b"\x00\x00\x00\x00" * 2, "BYTES", [1], "expected 1 elements.*received 1, then 4 bytes"),
    ],
)
def test_raw_bytes_that_do_not_fit_say_what_was_received(data, datatype, shape, words):
    with pytest.raises(InvalidInput, match=words):
        from_raw(data, datatype_name=datatype, shape=shape, name="x")


def test_elements_are_not_gathered_beyond_those_that_the_shape_announces():
    empty = bytes(4 * 1_000_000)  # a million elements of no bytes

    with pytest.raises(InvalidInput, match="received 2, then 3999992 bytes"):
        split_bytes(empty, count=2, name="x")


def test_one_long_text_among_many_numbers_does_not_take_its_length_for_each():
    data = ["x" * 1_000_000, *[0] * 100_000]  # an array of texts would take 400 GB

    with pytest.raises(InvalidInput, match="does not fit FP32"):
        from_numbers(data, datatype_name="FP32", shape=[len(data)], name="x")


def test_deep_nesting_is_read_without_recursion():
    data = [1.0]
    for _ in range(1_000):
        data = [data]

    assert from_numbers(data, datatype_name="FP32", shape=[1], name="x").tolist() == [1.0]
    with pytest.raises(InvalidInput, match="does not fit BOOL"):
        from_numbers([{"a": data}], datatype_name="BOOL", shape=[1], name="x")
    with pytest.raises(InvalidInput, match="whole numbers"):
        checked_shape(data, name="x")


def test_infinity_travels_as_a_number_but_nothing_overflows_to_it():
    assert from_numbers([math.inf, 1], datatype_name="FP32", shape=[2], name="x").tolist() == [
        math.inf,
        1,
    ]
    with pytest.raises(InvalidInput, match="does not fit FP32"):
        from_numbers([math.inf, 1e300], datatype_name="FP32", shape=[2], name="x")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1, math.nan]), "'y' holds NaN or infinity"),
        (np.array([-math.inf], dtype=np.float32), "'y' holds NaN or infinity"),
        (np.zeros(1, np.float16), "'y' cannot be sent as JSON"),
        (np.zeros(1, DATATYPES["BF16"].numpy), "'y' cannot be sent as JSON"),
        (np.array([b"\xff"], dtype=np.object_), "'y' holds bytes that are not UTF-8"),
    ],
)
def test_an_output_that_json_cannot_carry_says_to_ask_for_binary_data(array, words):
    with pytest.raises(InvalidInput, match=f"{words}.*binary data"):
        to_numbers(array, name="y")


def test_texts_of_the_engine_become_utf8():
    texts = np.array(["é", ""], dtype=np.object_)

    assert to_raw(texts) == b"\x02\x00\x00\x00\xc3\xa9\x00\x00\x00\x00"
    assert to_numbers(texts, name="y") == ["é", ""]


def test_an_array_with_gaps_is_written_row_by_row():
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]

    assert to_raw(array) == array.copy().tobytes()
    assert to_numbers(array, name="y").tolist() == array.ravel().tolist()
    assert to_numbers(array, name="y").flags.c_contiguous
