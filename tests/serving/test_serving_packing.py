"""From requests to the engine's inputs: bytes, pieces of bytes, arrays, texts, parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.datatypes import DATATYPES
from ridgeline.model import ModelSpec, TensorSpec
from serving.job import Job
from serving.packing import Packer
from serving.waiting import Batch


def _packer(*tensors: TensorSpec, max_batch_size: int = 8) -> Packer:
    return Packer(ModelSpec("m", max_batch_size, tensors, tensors))


def _batch(*payloads, rows, skipped: int = 0, kept: int | None = None) -> Batch:
    """Requests with those inputs (a tuple each) and rows; the first and last may be partly in."""
    jobs = [Job(inputs, rows=count, size_bytes=0) for inputs, count in
            zip(payloads, rows, strict=True)]  # fmt: skip
    kept = jobs[-1].rows - (skipped if len(jobs) == 1 else 0) if kept is None else kept
    whole = 0 if len(jobs) == 1 else sum(rows[:-1]) - skipped
    return Batch(jobs, whole + kept, {jobs[0]: skipped} if skipped else {}, kept)


def _array(first: int, rows: int) -> np.ndarray:
    return np.arange(first, first + 2 * rows, dtype=np.float32).reshape(rows, 2)


X = TensorSpec("x", "FP32", (2,))


def _as_bytes(array: np.ndarray) -> bytes:
    return array.tobytes()


def _as_view(array: np.ndarray) -> memoryview:
    return memoryview(b"\0\0\0" + array.tobytes())[3:]  # not aligned


def _as_pieces(array: np.ndarray) -> list[memoryview]:
    view = memoryview(array.tobytes())
    return [view[:3], view[3:3], view[3:]]


def _as_array(array: np.ndarray) -> np.ndarray:
    return array


KINDS = [_as_bytes, _as_view, _as_pieces, _as_array]


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_requests_stand_one_behind_the_other_however_they_came(first, second):
    batch = _batch((first(_array(0, 1)),), (second(_array(2, 2)),), rows=[1, 2])

    packed = _packer(X).pack(batch)

    assert packed["x"].dtype == np.float32
    assert packed["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert packed["x"].flags.aligned


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_alone_is_aligned_too(kind):
    packed = _packer(X).pack(_batch((kind(_array(4, 2)),), rows=[2]))

    assert packed["x"].tolist() == [[4, 5], [6, 7]]
    assert packed["x"].flags.aligned


@pytest.mark.parametrize("kind", KINDS)
def test_of_the_first_and_last_request_only_their_parts_are_taken(kind):
    payloads = [(kind(_array(10 * n, 3)),) for n in range(3)]

    packed = _packer(X).pack(_batch(*payloads, rows=[3, 3, 3], skipped=2, kept=1))

    assert packed["x"].tolist() == [[4, 5], [10, 11], [12, 13], [14, 15], [20, 21]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_one_request_is_taken(kind):
    packed = _packer(X).pack(_batch((kind(_array(0, 5)),), rows=[5], skipped=1, kept=2))

    assert packed["x"].tolist() == [[2, 3], [4, 5]]


def test_each_input_has_its_own_rows_and_order():
    y = TensorSpec("y", "INT64", ())
    numbers = [np.array([n, n + 1], np.int64) for n in (1, 5)]
    batch = _batch(
        (_array(0, 2).tobytes(), numbers[0].tobytes()), (_array(9, 2), numbers[1]), rows=[2, 2]
    )

    packed = _packer(X, y).pack(batch)

    assert list(packed) == ["x", "y"]
    assert packed["x"].tolist() == [[0, 1], [2, 3], [9, 10], [11, 12]]
    assert packed["y"].tolist() == [1, 2, 5, 6]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_arrays_of_every_datatype_are_packed(datatype):
    dtype = DATATYPES[datatype].numpy
    one = b"a" if datatype == "BYTES" else 1
    arrays = [np.full((rows, 2), one, dtype=dtype) for rows in (1, 2)]
    packer = _packer(TensorSpec("x", datatype, (2,)))

    together = packer.pack(_batch(*((array,) for array in arrays), rows=[1, 2]))["x"]
    part = packer.pack(_batch((arrays[0],), (arrays[1],), rows=[1, 2], kept=1))["x"]

    assert together.dtype == part.dtype == dtype
    assert together.tolist() == [[one, one]] * 3
    assert part.shape == (2, 2)


def test_texts_of_any_length_are_packed_and_parted():
    texts = [np.array([[b"", b"ab"], [b"c\0d", b"e"]], dtype=np.object_) for _ in range(2)]
    packer = _packer(TensorSpec("x", "BYTES", (2,)))

    packed = packer.pack(_batch(*((text,) for text in texts), rows=[2, 2], skipped=1))["x"]

    assert packed.tolist() == [[b"c\0d", b"e"], [b"", b"ab"], [b"c\0d", b"e"]]


def test_a_free_axis_is_as_the_requests_have_it():
    packer = _packer(TensorSpec("x", "FP32", (-1,)))

    assert packer.pack(_batch((_array(0, 1),), (_array(2, 1),), rows=[1, 1]))["x"].shape == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 2), (4,)])
def test_a_model_without_a_batch_axis_gets_its_own_shape(kind, shape):
    array = _array(0, 2).reshape(shape)
    packer = _packer(TensorSpec("x", "FP32", shape), max_batch_size=0)

    packed = packer.pack(_batch((kind(array),), rows=[1]))["x"]

    assert packed.shape == shape
    assert packed.ravel().tolist() == [0, 1, 2, 3]


def test_a_scalar_is_packed_without_a_batch_axis():
    packer = _packer(TensorSpec("x", "FP32", ()), max_batch_size=0)

    packed = packer.pack(_batch((np.float32(3).tobytes(),), rows=[1]))["x"]

    assert packed.shape == ()
    assert packed == 3


def test_rows_of_no_elements_are_packed():
    packer = _packer(TensorSpec("x", "FP32", (0,)))

    packed = packer.pack(_batch((b"",), (np.empty((2, 0), np.float32),), rows=[1, 2]))["x"]

    assert packed.shape == (3, 0)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
@settings(max_examples=80, deadline=None)
def test_parts_are_what_slicing_the_whole_gives(rows, data):
    kinds = [data.draw(st.sampled_from(KINDS)) for _ in rows]
    skipped = data.draw(st.integers(0, rows[0] - 1))
    most = rows[-1] - (skipped if len(rows) == 1 else 0)
    kept = data.draw(st.integers(1, most))
    arrays = [_array(100 * n, count) for n, count in enumerate(rows)]
    payloads = [(kind(array),) for kind, array in zip(kinds, arrays, strict=True)]

    packed = _packer(X).pack(_batch(*payloads, rows=rows, skipped=skipped, kept=kept))["x"]

    end = sum(rows) - rows[-1] + (skipped if len(rows) == 1 else 0) + kept
    assert packed.tolist() == np.concatenate(arrays)[skipped:end].tolist()
