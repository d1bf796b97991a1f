"""Records become Triton's JSON, in files that are whole at any time, without holding anybody up."""

import json
import threading

import ml_dtypes
import numpy as np
import pytest

from serving import trace_file
from serving.trace_file import TraceRecord, TraceWriter


def _record(number=1, *, frequency=0, **what):
    return TraceRecord(number, "m", "1", "", frequency, **what)


def _tensor(array):
    text = b"".join(_record(tensors=(("A", "x", array),)).pieces()).decode()
    return json.loads(f"[{text}]")[1]["tensor"]


@pytest.mark.parametrize(
    ("array", "data", "kind"),
    [
        (np.array([[1, -2]], np.int8), "1,-2", "INT8"),
        (np.array([2**64 - 1], np.uint64), str(2**64 - 1), "UINT64"),
        (np.array([0.1, np.nan, np.inf], np.float32), "0.1,nan,inf", "FP32"),
        (np.array([0.5], np.float16), "0.5", "FP16"),
        (np.array([1.5], ml_dtypes.bfloat16), "1.5", "BF16"),
        (np.array([True, False]), "1,0", "BOOL"),
        (np.array([b'a"\n', b"\xff"], np.object_), '"a"\n","\\xff"', "BYTES"),
        (np.array(["tree"], np.object_), '"tree"', "BYTES"),
        (np.zeros((0, 3), np.float64), "", "FP64"),
        (np.array(7, np.int32), "7", "INT32"),
    ],
)
def test_every_datatype_becomes_text(array, data, kind):
    shape = ",".join(map(str, array.shape))
    assert _tensor(array) == {"name": "x", "data": data, "shape": shape, "dtype": kind}


def test_large_tensors_become_text_piece_by_piece(monkeypatch):
    monkeypatch.setattr(trace_file, "_CHUNK", 3)
    record = _record(tensors=(("A", "x", np.arange(8)),))

    assert _tensor(np.arange(8))["data"] == "0,1,2,3,4,5,6,7"
    assert max(map(len, record.pieces())) < 60


def test_a_request_id_is_told_where_there_is_one():
    record = TraceRecord(3, "m", "two", "abc", 0, begin=(("REQUEST_START", 5),))
    assert json.loads(b"[" + b"".join(record.pieces()) + b"]") == [
        {"id": 3, "model_name": "m", "model_version": "two", "request_id": "abc"},
        {"id": 3, "timestamps": [{"name": "REQUEST_START", "ns": 5}]},
    ]


def _ids(path):
    return [event["id"] for event in json.loads(path.read_text())]


def test_the_file_is_begun_anew(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("what another server wrote " * 100)
    writer = TraceWriter(path)
    for number in (1, 2, 3):
        writer.put(_record(number))
    writer.close()
    assert _ids(path) == [1, 2, 3]
    writer.put(_record(4))  # too late
    writer.close()
    assert _ids(path) == [1, 2, 3]


def test_numbered_files_follow_one_another(tmp_path):
    path = tmp_path / "t.json"
    writer = TraceWriter(path)
    for number in range(5):
        writer.put(_record(number, frequency=2))
    writer.close()
    files = [tmp_path / f"t.json.{index}" for index in range(3)]
    assert [_ids(file) for file in files] == [[0, 1], [2, 3], [4]]


def test_what_cannot_be_written_is_told_once_and_holds_nobody_up(tmp_path, caplog):
    writer = TraceWriter(tmp_path / "gone" / "t.json")
    writer.put(_record(1))
    writer.put(_record(2))
    writer.close()
    assert caplog.text.count("a trace cannot be written") == 1


@pytest.mark.parametrize("bound", ["_MAX_WAITING", "_MAX_WAITING_BYTES"])
def test_records_beyond_the_bounds_are_left_out_and_counted(tmp_path, monkeypatch, caplog, bound):
    monkeypatch.setattr(trace_file, bound, 1)
    path, held, begun = tmp_path / "t.json", threading.Event(), threading.Event()

    class Held(TraceRecord):
        def pieces(self):
            begun.set()
            held.wait(60)
            return super().pieces()

    writer = TraceWriter(path)
    tensors = (("A", "x", np.array([b"text"], np.object_)),)
    writer.put(Held(1, "m", "1", "", 0, tensors=tensors))
    assert begun.wait(60)
    if bound == "_MAX_WAITING":
        writer.put(_record(2))
    writer.put(_record(3))
    writer.put(_record(4))
    held.set()
    writer.close()

    assert writer.lost == 2
    assert set(_ids(path)) == ({1, 2} if bound == "_MAX_WAITING" else {1})
    assert "2 traces could not be written" in caplog.text
