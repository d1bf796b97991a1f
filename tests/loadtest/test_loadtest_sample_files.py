"""Files and folders as samples: what is sent, what is right, and what is told of wrong ones."""

import json

import numpy as np
import pytest

from loadtest import preparation
from loadtest.preparation import prepare
from loadtest.samples import read_samples
from loadtest.schedule import Replay
from loadtest.served import ServedModel
from loadtest.settings import LoadtestSettings
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.model import TensorSpec

Y = TensorSpec("y", "FP32", (-1, 2))
WORDS = TensorSpec("words", "BYTES", (-1, 1))
ARRAYS = ServedModel("net", "1", (TensorSpec("x", "FP32", (-1, 3)),), (Y,))
FILES = ServedModel("photos", "1", (TensorSpec("file", "BYTES", (-1, 1)),), (Y, WORDS))
SEVERAL = ServedModel("two", "1", (*ARRAYS.inputs, TensorSpec("z", "FP32", (-1, 1))), (Y,))
NUMBERS = ServedModel("ids", "1", (TensorSpec("ids", "UINT8", (-1, 1)),), (Y,))
JPEG = b"\xff\xd8\xff\xe0 a photo"


def test_a_folder_of_images_is_sent_as_it_is_in_the_order_of_names(tmp_path):
    (tmp_path / "b.png").write_bytes(b"second")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / ".hidden").write_bytes(b"no sample")
    samples = read_samples([tmp_path], model=FILES)
    assert samples.arrays["file"].tolist() == [[JPEG], [b"second"]]
    assert (samples.labels, samples.count, dict(samples.expected)) == (None, 2, {})


def test_answers_stand_beside_their_files(tmp_path):
    for name, label, word in (("a.jpg", 3, "cat"), ("b.jpg", 1, "dög")):
        (tmp_path / name).write_bytes(JPEG)
        told = {"label": label, "y": [label, 0.5], "words": [word]}
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    samples = read_samples([tmp_path / "b.jpg", tmp_path / "a.jpg"], model=FILES)
    assert samples.labels.tolist() == [1, 3]
    assert samples.expected["y"].tolist() == [[1, 0.5], [3, 0.5]]
    assert samples.expected["y"].dtype == np.float32
    assert samples.expected["words"].tolist() == [["dög".encode()], [b"cat"]]
    assert samples.expected_of(1, size=2)["y"].tolist() == [[3, 0.5], [1, 0.5]]


def test_an_array_is_one_sample_or_several_by_its_axes(tmp_path):
    np.save(tmp_path / "one.npy", np.float32([1, 2, 3]))
    np.save(tmp_path / "two.npy", np.float32([[4, 5, 6], [7, 8, 9]]))
    (tmp_path / "one.npy.json").write_text('{"label": 1}')
    (tmp_path / "two.npy.json").write_text('[{"label": 2}, {"label": 3}]')
    samples = read_samples([tmp_path], model=ARRAYS)
    assert samples.arrays["x"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert samples.labels.tolist() == [1, 2, 3]


def test_archives_and_lines_may_hold_outputs_that_are_right(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((2, 3), np.float32), y=np.zeros((2, 2), np.float32))
    (tmp_path / "b.jsonl").write_text('{"x": [1, 2, 3], "y": [4, 5]}\n\n')
    samples = read_samples([tmp_path], model=ARRAYS)
    assert samples.count == 3
    assert samples.expected["y"].tolist() == [[0, 0], [0, 0], [4, 5]]


def test_texts_of_lines_are_sent_as_utf8(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"file": ["grün"]}\n{"file": ["rot"]}\n')
    samples = read_samples([tmp_path / "a.jsonl"], model=FILES)
    assert samples.arrays["file"].tolist() == [["grün".encode()], [b"rot"]]


@pytest.mark.parametrize(
    ("name", "content", "model", "error", "text"),
    [
        (
            "a.jpg",
            JPEG,
            ARRAYS,
            InvalidInput,
            r"sent as it is.*'x'.*FP32 \[3\]",
        ),
        ("a.jpg", JPEG, SEVERAL, InvalidInput, r"one input, but model 'two' has \['x', 'z'\]"),
        ("a.npy", b"no array", ARRAYS, CorruptData, r"a\.npy is not an array"),
        (
            "a.npy",
            np.zeros((2, 4), np.float32),
            ARRAYS,
            InvalidInput,
            r"shape \[4\]; expected \[3\]",
        ),
        ("a.npy", np.zeros((3,)), ARRAYS, InvalidInput, r"is FP64 \(float64\); expected FP32"),
        ("a.npy", np.zeros((1, 2, 3), np.float32), ARRAYS, InvalidInput, r"shape \[2, 3\]"),
        ("a.jsonl", b"", ARRAYS, CorruptData, "must hold JSON objects"),
        ("a.jsonl", b"{", ARRAYS, CorruptData, "does not hold JSON"),
        ("a.jsonl", b"\xff", ARRAYS, CorruptData, "not a text in UTF-8"),
        ("a.jsonl", b"[1]\n", ARRAYS, CorruptData, "must hold JSON objects"),
        ("a.jsonl", b'{"x": [1]}\n{"y": [1]}', ARRAYS, CorruptData, "the names differ"),
        ("a.jsonl", b'{"x": [1, 2]}\n{"x": [1]}', ARRAYS, CorruptData, "inhomogeneous"),
        ("a.jsonl", b'{"file": [7]}', FILES, CorruptData, "must hold JSON objects"),
        (
            "a.jsonl",
            b'{"q": [7], "x": [1, 2, 3]}',
            ARRAYS,
            InvalidInput,
            r"\['q', 'x'\]; the",
        ),
        ("a.jsonl", b'{"ids": [1.5]}', NUMBERS, CorruptData, "whole numbers, found float64"),
        ("a.jsonl", b'{"ids": [300]}', NUMBERS, CorruptData, "out of bounds"),
        ("a.ndjson", b'{"x": [1, 2]}', ARRAYS, InvalidInput, r"shape \[2\]; expected \[3\]"),
    ],
)
def test_a_file_that_does_not_fit_is_told(tmp_path, name, content, model, error, text):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(error, match=text):
        read_samples([path], model=model)


@pytest.mark.parametrize(
    ("told", "error", "text"),
    [
        ('[{"label": 1}, {"label": 2}]', InvalidInput, r"answers of 2 samples; .*a\.jpg holds 1"),
        ('{"file": ["x"]}', InvalidInput, "must hold answers; found the input 'file'"),
        ("3", CorruptData, "must hold JSON objects"),
        ('{"label": 1.5}', InvalidInput, "whole number"),
        ('{"y": [1, 2, 3]}', InvalidInput, r"'y' in .*a\.jpg has the shape \[3\]; expected \[2\]"),
        ('{"label": 99999999999999999999}', InvalidInput, "whole number"),
    ],
)
def test_answers_that_do_not_fit_are_told(tmp_path, told, error, text):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.jpg.json").write_text(told)
    with pytest.raises(error, match=text):
        read_samples([tmp_path], model=FILES)


def test_files_that_differ_in_what_they_hold_or_in_shape_are_told(tmp_path):
    free = ServedModel("net", "1", (TensorSpec("x", "FP32", (-1, -1)),), (Y,))
    np.save(tmp_path / "a.npy", np.zeros(3, np.float32))
    np.save(tmp_path / "b.npy", np.zeros(4, np.float32))
    with pytest.raises(InvalidInput, match=r"'x' is \[3\] in .*a\.npy and \[4\] in .*b\.npy"):
        read_samples([tmp_path], model=free)
    (tmp_path / "b.npy.json").write_text('{"label": 1}')
    with pytest.raises(InvalidInput, match=r"b\.npy holds \['label', 'x'\], but .*a\.npy \['x'\]"):
        read_samples([tmp_path], model=free)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFound, match="holds no files with samples"):
        read_samples([tmp_path], model=FILES)
    with pytest.raises(NotFound, match=r"there is no file .*none\.jpg"):
        read_samples([tmp_path / "none.jpg"], model=FILES)
    with pytest.raises(NotFound, match=r"there is no file .*none\.jsonl"):
        read_samples([tmp_path / "none.jsonl"], model=FILES)
    with pytest.raises(NotFound, match=r"there is no file .*none\.npy"):
        read_samples([tmp_path / "none.npy"], model=ARRAYS)
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 3), np.float32))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(CorruptData, match="is an archive"):
        read_samples([tmp_path / "a.npy"], model=ARRAYS)


def settings_for(path, **changed):
    return LoadtestSettings(url="h:1", protocol="grpc", model="net", data=(path,), **changed)


def test_all_samples_are_sent_in_turn_with_what_is_right_of_each(tmp_path):
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    np.savez(tmp_path / "a.npz", x=x, y=x[:, :2], label=np.arange(10))
    prepared = prepare(settings_for(tmp_path), model=ARRAYS, batch_size=4)
    assert prepared.given == 10
    assert prepared.requests.rows == [4, 4, 4]
    assert [own.tolist() for own in prepared.labels] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert prepared.told[2]["y"].tolist() == x[[8, 9, 0, 1], :2].tolist()
    assert len({message.body for message in prepared.requests.messages}) == 3


def test_of_too_many_samples_the_first_are_sent(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=np.zeros((1000, 3), np.float32))
    assert len(prepare(settings_for(tmp_path), model=ARRAYS, batch_size=1).requests.rows) == 256
    monkeypatch.setattr(preparation, "_MOST_GIVEN_BYTES", 100)  # 8 samples of 12 bytes
    assert len(prepare(settings_for(tmp_path), model=ARRAYS, batch_size=1).requests.rows) == 8
    assert len(prepare(settings_for(tmp_path), model=ARRAYS, batch_size=50).requests.rows) == 1


def test_a_trace_shares_the_room_among_its_sizes(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((1000, 3), np.float32))
    trace = Replay(path="trace", arrivals_ns=(0, 1), rows=(1, 2))
    rows = prepare(settings_for(tmp_path, load=trace), model=ARRAYS, batch_size=1).requests.rows
    assert (rows.count(1), rows.count(2)) == (128, 128)


def test_the_bytes_of_a_text_are_those_that_are_sent():
    batch = {"file": np.array([[b"12345"], [b"123"]], dtype=np.object_)}
    assert preparation.size_bytes(batch) == 8
