import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.samples import Samples, random_batch, read_samples
from loadtest.served import ServedModel
from ridgeline.datatypes import DATATYPES, datatype_of_numpy
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.model import TensorSpec

untimed = settings(deadline=None)  # the machine may be busy

MODEL = ServedModel(
    "net",
    "1",
    (TensorSpec("x", "FP32", (-1, 4)), TensorSpec("ids", "INT64", (-1, -1))),
    (TensorSpec("y", "FP32", (-1, 2)),),
)


@pytest.fixture
def write(tmp_path):
    def save(**arrays):
        good = {"x": np.zeros((6, 4), np.float32), "ids": np.zeros((6, 3), np.int64)}
        path = tmp_path / "data.npz"
        np.savez(path, **{k: v for k, v in {**good, **arrays}.items() if v is not None})
        return path

    return save


def test_samples_are_read_with_their_labels(write):
    samples = read_samples([write(label=np.arange(6, dtype=np.uint8))], model=MODEL)
    assert samples.count == 6
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    assert list(samples.arrays) == ["x", "ids"]


def test_labels_may_be_absent(write):
    assert read_samples([write()], model=MODEL).labels is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x": None}, r"holds \['ids'\].*inputs of model 'net' are \['ids', 'x'\]"),
        ({"z": np.zeros(6)}, r"holds \['ids', 'x', 'z'\]"),
        ({"x": np.zeros((6, 4))}, r"'x' in .* is FP64 \(float64\); expected FP32"),
        ({"x": np.zeros((6, 5), np.float32)}, r"shape \[5\]; expected \[4\]"),
        ({"x": np.zeros((6, 2, 2), np.float32)}, r"shape \[2, 2\]; expected \[4\]"),
        ({"x": np.zeros((5, 4), np.float32)}, "as many samples of each"),
        ({"label": np.zeros(7, np.int64)}, "as many samples of each"),
        ({"label": np.zeros(6)}, r"one whole number per sample, found float64 \[6\]"),
        ({"label": np.zeros((6, 1), np.int64)}, r"found int64 \[6, 1\]"),
        ({"x": np.zeros((0, 4), np.float32), "ids": np.zeros((0, 3), np.int64)}, "at least 1"),
        ({"label": np.int64(3)}, "as many samples of each"),
    ],
)
def test_samples_that_do_not_fit_the_model_are_refused(write, change, text):
    with pytest.raises(InvalidInput, match=text):
        read_samples([write(**change)], model=MODEL)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"none\.npz"):
        read_samples([tmp_path / "none.npz"], model=MODEL)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_file_is_named(write, keep):
    path = write()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptData, match=r"data\.npz is not an \.npz archive"):
        read_samples([path], model=MODEL)


def test_a_single_array_is_no_archive(tmp_path):
    path = tmp_path / "one.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(CorruptData, match="single array"):
        read_samples([path], model=MODEL)


@untimed
@given(start=st.integers(0, 50), size=st.integers(1, 20))
def test_rows_go_round_after_the_last_sample(start, size):
    samples = Samples(arrays={"x": np.arange(7)}, labels=None, count=7)
    rows = samples.rows(start, size=size)["x"]
    assert rows.tolist() == [(start + offset) % 7 for offset in range(size)]


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_random_batches_have_the_datatype_and_shape_of_the_input(name):
    tensor = TensorSpec("x", name, (-1, 3, -1))
    model = ServedModel("net", "1", (tensor,), (tensor,))
    batch = random_batch(model, batch_size=5, generator=np.random.default_rng(0))
    assert batch["x"].shape == (5, 3, 1)
    assert datatype_of_numpy(batch["x"].dtype).name == name


def test_the_same_seed_gives_the_same_batch():
    first, again = (
        random_batch(MODEL, batch_size=4, generator=np.random.default_rng(9)) for _ in "ab"
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert first["x"].std() > 0
    assert set(np.unique(first["ids"])) <= {0, 1}
