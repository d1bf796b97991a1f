"""gRPC messages to requests and back, without a connection."""

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import InvalidInput, NotFound, RidgelineError
from serving.protocol.grpc_codec import decode_request, encode_response, output_wishes
from serving.request import InferResponse
from serving.shared_memory import Regions

# The field of each datatype as the protocol's specification lists them, and two values for it.
TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [1, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, float("inf")]),
    "FP64": ("fp64_contents", [0.1, float("-inf")]),
    "BYTES": ("bytes_contents", [b"", b"\xff\x00"]),
}


def _message(*tensors, raw=(), outputs=()):
    message = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=raw)
    for name, datatype, shape in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    for name in outputs:
        message.outputs.add(name=name)
    return message


def _decode(message):
    return decode_request(message, deadline_ns=None)


def test_every_part_of_a_message_arrives():
    message = _message(("x", "FP32", [1]), raw=[bytes(4)], outputs=["b", "a"])
    message.model_version, message.id = "3", "7"

    request = decode_request(message, deadline_ns=5)

    assert (request.model_name, request.model_version, request.id) == ("m", "3", "7")
    assert request.outputs == ("b", "a")
    assert request.deadline_ns == 5
    assert request.inputs["x"].tolist() == [0]


def test_raw_contents_belong_to_the_inputs_in_their_order():
    a, b = np.array([1, 2], np.int16), np.array([[3.5]], np.float64)

    inputs = _decode(
        _message(("b", "FP64", [1, 1]), ("a", "INT16", [2]), raw=[b.tobytes(), a.tobytes()])
    ).inputs

    assert list(inputs) == ["b", "a"]
    assert inputs["a"].tolist() == [1, 2]
    assert inputs["b"].tolist() == [[3.5]]


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_arrive_in_the_field_of_their_datatype(datatype):
    field, values = TYPED[datatype]
    message = _message(("x", datatype, [2, 1]))
    getattr(message.inputs[0].contents, field).extend(values)

    array = _decode(message).inputs["x"]

    assert array.dtype == DATATYPES[datatype].numpy
    assert array.tolist() == [[value] for value in values]


def test_typed_nan_stays_nan():
    message = _message(("x", "FP32", [1]))
    message.inputs[0].contents.fp32_contents.append(float("nan"))

    assert np.isnan(_decode(message).inputs["x"]).all()


def test_an_empty_tensor_may_come_typed_or_raw():
    assert _decode(_message(("x", "INT8", [0, 3]))).inputs["x"].shape == (0, 3)
    assert _decode(_message(("x", "INT8", [0, 3]), raw=[b""])).inputs["x"].shape == (0, 3)


def test_a_message_without_inputs_has_none():
    assert _decode(_message()).inputs == {}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            _message(("x", "FP32", [1]), ("x", "FP32", [1]), raw=[bytes(4)] * 2),
            "input 'x' is given twice",
        ),
        (_message(("x", "FP32", [1]), raw=[bytes(4)] * 2), "each of 1 inputs .* received 2"),
        (_message(("x", "FP32", [2]), raw=[bytes(4)]), r"FP32 \[2\] takes 8 bytes, received 4"),
        (_message(("x", "FP32", [-1]), raw=[bytes(4)]), r"not negative, received \[-1\]"),
        (_message(("x", "FP99", [1]), raw=[bytes(4)]), "input 'x': expected a datatype"),
        (_message(("x", "FP99", [1])), "input 'x': expected a datatype"),
        (_message(("x", "FP16", [1])), "FP16 data of input 'x' can only be sent as binary"),
        (_message(("x", "FP32", [1])), "takes 1 elements, received 0"),
    ],
)
def test_a_malformed_message_is_refused_naming_model_and_tensor(message, words):
    with pytest.raises(InvalidInput, match=f"model 'm': .*{words}"):
        _decode(message)


def test_data_in_the_wrong_field_says_where_it_belongs():
    message = _message(("x", "INT64", [1]))
    message.inputs[0].contents.int_contents.append(1)

    with pytest.raises(
        InvalidInput,
        match="INT64 data of input 'x' belongs into int64_contents, received int_contents",
    ):
        _decode(message)


def test_data_in_both_forms_is_refused():
    message = _message(("x", "INT32", [1]), raw=[bytes(4)])
    message.inputs[0].contents.int_contents.append(1)

    with pytest.raises(InvalidInput, match=r"contents field must not be specified.*'x'"):
        _decode(message)


@pytest.mark.parametrize("classes", [0, -1])
def test_a_number_of_classes_that_makes_no_sense_is_refused(classes):
    message = _message(("x", "INT8", [1]), raw=[b"1"], outputs=["y"])
    message.outputs[0].parameters["classification"].int64_param = classes

    with pytest.raises(InvalidInput, match="model 'm': invalid value for 'classification'"):
        output_wishes(message, regions=Regions())


def test_an_input_in_an_unknown_region_is_refused():
    message = _message(("x", "INT8", [1]))
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 1

    with pytest.raises(NotFound, match="model 'm': Unable to find shared memory region: 'r'"):
        _decode(message)


def test_parameters_of_a_response_arrive_with_their_kinds():
    parameters = {"a": True, "b": -1, "c": 2**63, "d": 0.5, "e": "x"}

    message = encode_response(InferResponse("m", "3", {}, parameters=parameters))

    kinds = {
        name: value.WhichOneof("parameter_choice") for name, value in message.parameters.items()
    }
    assert kinds == {
        "a": "bool_param",
        "b": "int64_param",
        "c": "uint64_param",
        "d": "double_param",
        "e": "string_param",
    }


@pytest.mark.parametrize("field", ["int64_param", "uint64_param"])
def test_priority_and_timeout_arrive_in_either_field_of_whole_numbers(field):
    message = _message(("x", "INT8", [1]), raw=[b"1"])
    setattr(message.parameters["priority"], field, 2)
    setattr(message.parameters["timeout"], field, 1_500)
    message.parameters["of the user"].string_param = "x"
    message.parameters["empty"].SetInParent()

    request = _decode(message)

    assert (request.priority, request.timeout_ns) == (2, 1_500_000)


def test_what_the_official_client_says_of_priority_and_timeout_arrives():
    sent = triton._utils._get_inference_request(
        model_name="m", inputs=[], model_version="", request_id="", outputs=None, sequence_id=0,
        sequence_start=False, sequence_end=False, priority=3, timeout=20, parameters=None,
    )  # fmt: skip

    request = _decode(sent)

    assert (request.priority, request.timeout_ns) == (3, 20_000)


def test_without_parameters_the_models_own_schedule_holds():
    request = _decode(_message(("x", "INT8", [1]), raw=[b"1"]))

    assert (request.priority, request.timeout_ns) == (0, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [("string_param", "1"), ("bool_param", True), ("int64_param", -1), ("double_param", 1.0),
     ("uint64_param", 2**63)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_a_priority_or_timeout_of_another_kind_is_refused(name, field, value):
    message = _message(("x", "INT8", [1]), raw=[b"1"])
    setattr(message.parameters[name], field, value)

    with pytest.raises(InvalidInput, match=f"model 'm': the parameter '{name}' must be a whole"):
        _decode(message)


CONTENTS = st.builds(
    service_pb2.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=2),
    fp32_contents=st.lists(st.floats(width=32), max_size=2),
    bytes_contents=st.lists(st.binary(max_size=3), max_size=2),
)
TENSORS = st.builds(
    service_pb2.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["a", "b", ""]),
    datatype=st.sampled_from([*DATATYPES, "", "FP8"]),
    shape=st.lists(st.integers(-1, 4) | st.just(2**62), max_size=3),
    contents=st.none() | CONTENTS,
)


@given(st.lists(TENSORS, max_size=3), st.lists(st.binary(max_size=16), max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_message_is_read_or_refused_but_nothing_else_is_raised(tensors, raw):
    message = service_pb2.ModelInferRequest(model_name="m", inputs=tensors, raw_input_contents=raw)
    try:
        request = _decode(message)
    except RidgelineError as error:
        refusal = str(error)
    else:
        assert [array.shape for array in request.inputs.values()] == [
            tuple(t.shape) for t in tensors
        ]
        return
    assert refusal.startswith("model 'm': ")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_official_client_reads_what_is_answered(datatype):
    array = (
        np.array([[b"a", b""]], np.object_)
        if datatype == "BYTES"
        else np.ones((1, 2), DATATYPES[datatype].numpy)
    )
    response = InferResponse("m", "3", {"y": array, "z": array[:, :1]}, id="7")

    message = encode_response(response)
    result = triton.InferResult(message)

    assert (message.model_name, message.model_version, message.id) == ("m", "3", "7")
    assert [(o.name, o.datatype, list(o.shape)) for o in message.outputs] == [
        ("y", datatype, [1, 2]),
        ("z", datatype, [1, 1]),
    ]
    assert result.as_numpy("y").tolist() == array.tolist()
    assert result.as_numpy("z").tolist() == array[:, :1].tolist()
