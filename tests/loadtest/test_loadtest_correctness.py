"""Answers under load against those without, from bytes as they come over the wire."""

import json

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtest.correctness import check
from loadtest.messages import outputs
from loadtest.wire.answers import Answers, Variant, from_arrays, to_arrays
from ridgeline.errors import CorruptData

Y = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)


def payload(array, *, name="y", datatype="FP32"):
    response = service_pb2.ModelInferResponse(model_name="net")
    response.outputs.add(name=name, datatype=datatype, shape=array.shape)
    response.raw_output_contents.append(array.tobytes())
    return response.SerializeToString()


def checked(*variants, labels=None, expected=None):
    answers = [Variant(0, data, count) for data, count in variants]
    return check(answers, protocol="grpc", expected=expected or [{"y": Y}], unseen=0, labels=labels)


def test_equal_answers_and_those_that_rounding_explains_are_right():
    found = checked((payload(Y), 90), (payload(Y * np.float32(1 + 1e-6)), 10))
    assert (found.compared, found.wrong, found.first_wrong) == (100, 0, None)


def test_an_answer_to_something_else_is_wrong():
    found = checked((payload(Y), 97), (payload(Y[:, ::-1].copy()), 3))
    assert found.wrong == 3
    assert "'y': up to 0.1 away" in found.first_wrong


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (payload(Y, name="z"), "lacks it"),
        (payload(np.zeros((1, 4), np.float32)), r"has float32 [1, 4]"),
        (b"\xff\xff", "no answer of the protocol"),
        (payload(np.full_like(Y, np.nan)), "'y'"),
    ],
)
def test_what_is_no_such_answer_is_wrong_and_says_why(data, told):
    found = checked((data, 1))
    assert found.wrong == 1
    assert told in found.first_wrong


def test_what_is_told_takes_the_place_of_the_answer_without_load_but_not_in_its_accuracy():
    told = [{"y": Y[:, ::-1].copy()}]
    found = check(
        [Variant(0, payload(Y), 5), Variant(0, payload(told[0]["y"]), 2)],
        protocol="grpc",
        expected=[{"y": Y}],
        told=told,
        unseen=0,
        labels=[np.array([1])],
    )
    assert (found.compared, found.wrong) == (7, 5)
    assert found.accuracy_alone == 1.0
    assert found.first_wrong == "output 'y': up to 0.1 away from what is right"


def test_whole_numbers_must_be_the_same():
    one = np.array([[3]], dtype=np.int64)
    found = checked((payload(one + 1, datatype="INT64"), 2), expected=[{"y": one}])
    assert found.wrong == 2


def test_accuracy_is_counted_under_load_and_without():
    wrong = payload(np.array([[0.9, 0.05, 0.05]], dtype=np.float32))
    found = checked((payload(Y), 3), (wrong, 1), labels=[np.array([1])])
    assert (found.accuracy, found.accuracy_alone) == (0.75, 1.0)


def test_answers_of_http_are_read_with_their_tensors_behind_the_json():
    header = {
        "outputs": [
            {
                "name": "y",
                "datatype": "FP32",
                "shape": [1, 3],
                "parameters": {"binary_data_size": 12},
            },
            {"name": "k", "datatype": "INT64", "shape": [2], "data": [4, 5]},
        ]
    }
    found = outputs(json.dumps(header).encode() + Y.tobytes(), protocol="http")
    np.testing.assert_array_equal(found["y"], Y)
    assert found["k"].tolist() == [4, 5]
    with pytest.raises(CorruptData):
        outputs(b"\0\1", protocol="http")


def test_typed_contents_and_texts_are_read():
    response = service_pb2.ModelInferResponse()
    tensor = response.outputs.add(name="y", datatype="FP32", shape=[2])
    tensor.contents.fp32_contents.extend([1.5, 2.5])
    assert outputs(response.SerializeToString(), protocol="grpc")["y"].tolist() == [1.5, 2.5]
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="t", datatype="BYTES", shape=[1])
    response.raw_output_contents.append(b"\3\0\0\0abc")
    assert outputs(response.SerializeToString(), protocol="grpc")["t"].tolist() == [b"abc"]


def test_different_answers_are_kept_with_how_often_they_came(tmp_path):
    answers = Answers(2)
    for kind, data in ((0, b"a"), (0, b"a"), (1, b"b"), (0, b"")):
        answers.note(kind, data)
    path = tmp_path / "raw.npz"
    np.savez(path, **to_arrays(answers.variants()))
    with np.load(path) as arrays:
        found = from_arrays(arrays)
    assert found == [Variant(0, b"a", 2), Variant(0, b"", 1), Variant(1, b"b", 1)]


def test_answers_beyond_what_is_kept_are_counted():
    answers = Answers(1)
    for number in range(1030):
        answers.note(0, number.to_bytes(4, "big"))
    answers.note(0, (0).to_bytes(4, "big"))
    assert answers.unseen == 6
    assert len(answers.variants()) == 1024
