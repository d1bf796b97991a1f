"""MNIST as it is read, and what becomes of damaged files."""

import gzip
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ridgeline.errors import CorruptData, NotFound
from training.datasets import DataSet
from training.datasets import mnist as mnist_files

TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped files, to be damaged."""
    for path in mnist_files.FOLDER.glob("*.gz"):
        shutil.copy(path, tmp_path)
    return tmp_path


def idx(array: np.ndarray) -> bytes:
    """An IDX file, written from the format's description rather than with the code under test."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def test_images_are_float32_in_zero_to_one_with_a_channel_and_a_border(mnist: DataSet) -> None:
    images = mnist.training.inputs
    assert images.shape == (60_000, 32, 32, 1)
    assert mnist.test.inputs.shape == (10_000, 32, 32, 1)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)
    assert not images[:, [0, 1, 30, 31]].any()
    assert not images[:, :, [0, 1, 30, 31]].any()


def test_the_mean_shade_is_the_one_that_is_published_for_mnist(mnist: DataSet) -> None:
    digits = mnist.training.inputs[:, 2:-2, 2:-2]
    assert digits.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)


def test_labels_are_int64_with_the_class_counts_of_the_published_test_set(mnist: DataSet) -> None:
    assert mnist.test.labels.dtype == np.int64
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.test.labels).tolist() == counts
    assert mnist.training.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_the_digests_are_those_in_the_readme_beside_the_files() -> None:
    readme = (mnist_files.FOLDER / "README.md").read_text(encoding="utf-8")
    listed = {name: md5 for md5, name in re.findall(r"([0-9a-f]{32})\s+(\S+)", readme)}
    assert listed == mnist_files._MD5


def test_a_truncated_file_is_named_in_the_error(folder: Path) -> None:
    path = folder / TEST_IMAGES
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptData, match=rf"{TEST_IMAGES} must be a whole gzip file"):
        mnist_files.load(folder=folder)


def test_a_file_that_is_no_gzip_is_named_in_the_error(folder: Path) -> None:
    (folder / TEST_LABELS).write_bytes(b"<html>not found</html>")
    with pytest.raises(CorruptData, match=rf"{TEST_LABELS} must be a whole gzip file"):
        mnist_files.load(folder=folder)


def test_a_flipped_bit_in_the_packed_data_is_noticed(folder: Path) -> None:
    path = folder / TEST_LABELS
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptData, match=TEST_LABELS):
        mnist_files.load(folder=folder)


def test_other_data_in_a_sound_file_fails_by_its_digest(folder: Path) -> None:
    path = folder / TEST_LABELS
    labels = bytearray(gzip.decompress(path.read_bytes()))
    labels[-1] ^= 1
    path.write_bytes(gzip.compress(labels))
    expected = mnist_files._MD5[path.stem]
    with pytest.raises(CorruptData, match=rf"MD5 {expected}, received 10008 bytes with [0-9a-f]"):
        mnist_files.load(folder=folder)


def test_a_missing_file_is_named_in_the_error(folder: Path) -> None:
    (folder / TEST_LABELS).unlink()
    with pytest.raises(NotFound, match=TEST_LABELS):
        mnist_files.load(folder=folder)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_an_idx_file_gives_back_the_array_written_to_it(array: np.ndarray) -> None:
    parsed = mnist_files.parse_idx(idx(array), source="file")
    assert parsed.shape == array.shape
    assert (parsed == array).all()


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_an_array_or_a_named_corruption(data: bytes, with_magic: bool) -> None:
    data = bytes([0, 0, 8]) + data if with_magic else data
    try:
        array = mnist_files.parse_idx(data, source="the file")
    except CorruptData as error:
        complaint = str(error)
    else:
        assert idx(array) == data
        return
    assert complaint.startswith("the file must")


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_an_idx_file_cut_anywhere_is_refused(cut: int) -> None:
    whole = idx(np.zeros((2, 3), np.uint8))
    with pytest.raises(CorruptData, match=f"received {len(whole) - cut}"):
        mnist_files.parse_idx(whole[:-cut], source="file")
