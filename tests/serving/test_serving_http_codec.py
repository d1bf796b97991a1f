"""HTTP bodies to requests and back, without a connection."""

import json

import numpy as np
import orjson
import pytest
import tritonclient.http as triton
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import InvalidInput, Malformed, NotFound, RidgelineError
from serving.protocol.http_codec import HEADER_LENGTH, Head, decode_request, encode_response
from serving.request import InferResponse


def _decode(body: bytes, header_length: str | None = None):
    head = Head(model_name="m", model_version="3", header_length=header_length)
    return decode_request(body, head=head)


def _body(table) -> bytes:
    """A request; without inputs where none are said."""
    if isinstance(table, dict):
        table = {"inputs": [], **table}
    return json.dumps(table).encode()


def _tensor(**fields):
    return {"name": "x", "datatype": "FP32", "shape": [1], **fields}


def _array(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["é".encode(), b""]], dtype=np.object_)
    return np.array([[1, 0]], dtype=DATATYPES[datatype].numpy)


def test_every_part_of_a_json_request_arrives():
    decoded = _decode(
        _body(
            {
                "id": "7",
                "inputs": [_tensor(data=[0.5])],
                "outputs": [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}],
                "parameters": {"binary_data_output": False, "of the user": 1},
            }
        )
    )

    request = decoded.request
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "7")
    assert request.inputs["x"].tolist() == [0.5]
    assert request.outputs == ("b", "a")
    assert (decoded.is_binary("b"), decoded.is_binary("a")) == (True, False)
    assert not decoded.is_plain
    assert not decoded.binary_by_default
    assert (request.priority, request.timeout_ns, request.deadline_ns) == (0, None, None)


def test_json_that_ends_before_its_end_asks_where_binary_data_begin():
    header = _body({"inputs": [_tensor(parameters={"binary_data_size": 4})]})

    with pytest.raises(InvalidInput, match=f"it ends after {len(header)} bytes, .* binary data"):
        _decode(header + bytes(4))
    with pytest.raises(Malformed, match="not valid JSON: unexpected"):
        _decode(header[:-1] + bytes(4))


def test_deadline_priority_and_timeout_arrive():
    body = _body({"parameters": {"priority": 2, "timeout": 1_500}})

    head = Head(model_name="m", model_version="", deadline_ns=5)
    request = decode_request(body, head=head).request

    assert (request.deadline_ns, request.priority, request.timeout_ns) == (5, 2, 1_500_000)


def test_how_much_came_as_binary_data_is_known():
    header = _body({"inputs": [_tensor(parameters={"binary_data_size": 4})]})

    assert _decode(header + bytes(4), str(len(header))).binary_bytes == 4
    assert _decode(_body({"inputs": [_tensor(data=[1])]})).binary_bytes == 0


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_the_official_client_sends_as_binary_data_arrives(datatype):
    array = _array(datatype)
    sent = [triton.InferInput(name, array.shape, datatype) for name in ("x", "z")]
    for tensor in sent:
        tensor.set_data_from_numpy(array)
    body, length = triton.InferenceServerClient.generate_request_body(sent)

    inputs = _decode(bytes(body), str(length)).request.inputs

    for name in ("x", "z"):
        assert inputs[name].dtype == array.dtype
        assert inputs[name].tolist() == array.tolist()


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("FP16", "BF16")])
def test_what_the_official_client_sends_as_json_arrives(datatype):
    array = _array(datatype)
    sent = triton.InferInput("x", array.shape, datatype)
    sent.set_data_from_numpy(array, binary_data=False)
    body, length = triton.InferenceServerClient.generate_request_body([sent])

    received = _decode(body if isinstance(body, bytes) else body.encode(), length).request.inputs[
        "x"
    ]

    assert received.dtype == array.dtype
    assert received.tolist() == array.tolist()


def test_json_and_binary_inputs_may_stand_in_one_request():
    header = _body(
        {
            "inputs": [
                _tensor(data=[1]),
                _tensor(name="b", datatype="INT8", parameters={"binary_data_size": 1}),
            ]
        }
    )

    inputs = _decode(header + b"\x05", str(len(header))).request.inputs

    assert inputs["x"].tolist() == [1]
    assert inputs["b"].tolist() == [5]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([], "must be a JSON object, received a list"),
        (None, "must be a JSON object, received a NoneType"),
        ({"inputs": {}}, "'inputs' of the request must be a list"),
        ({"inputs": None}, "'inputs' of the request must be a list, received None"),
        ({"inputs": [1]}, "elements of 'inputs' must be objects, received 1"),
        ({"inputs": [{"data": []}]}, "an input needs the field 'name', received only data"),
        ({"inputs": [_tensor(name=None)]}, "'name' of an input must be a text, received None"),
        ({"inputs": [{"name": "x"}]}, "input 'x' needs the field 'datatype'"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "input 'x' needs the field 'shape'"),
        ({"inputs": [_tensor(shape=None)]}, "'shape' of input 'x' must be a list, received None"),
        ({"inputs": [_tensor()]}, "input 'x' needs the field 'data'"),
        ({"inputs": [_tensor(data="1")]}, "'data' of input 'x' must be a list, received '1'"),
        (
            {"inputs": [_tensor(data=[1, 2])]},
            r"input 'x' of shape \[1\] takes 1 elements, received 2",
        ),
        ({"inputs": [_tensor(data=[1]), _tensor(data=[1])]}, "input 'x' is given twice"),
        ({"inputs": [_tensor(datatype="FP8", data=[1])]}, "input 'x': expected a datatype"),
        ({"inputs": [_tensor(parameters=[])]}, "'parameters' of input 'x' must be an object"),
        (
            {"inputs": [_tensor(parameters={"binary_data_size": 4})]},
            "announces 4 bytes of binary data, 0 are left",
        ),
        (
            {"inputs": [_tensor(parameters={"binary_data_size": -1})]},
            "must not be negative, received -1",
        ),
        (
            {"inputs": [_tensor(parameters={"binary_data_size": True})]},
            "'binary_data_size' of input 'x' must be a whole number",
        ),
        (
            {"inputs": [_tensor(data=[1], parameters={"binary_data_size": 0})]},
            "both 'binary_data_size' and 'data'",
        ),
        ({"id": 7}, "'id' of the request must be a text, received 7"),
        ({"outputs": [{}]}, "an output needs the field 'name'"),
        (
            {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            "'binary_data' of output 'y' must be a boolean",
        ),
        (
            {"parameters": {"binary_data_output": "yes"}},
            "'binary_data_output' of the request must be a boolean",
        ),
        ({"parameters": {"priority": -1}}, "'priority' must be a whole number.*received -1"),
        ({"parameters": {"priority": True}}, "'priority' must be a whole number.*received True"),
        ({"parameters": {"timeout": 1.5}}, r"'timeout' must be a whole number.*received 1\.5"),
        ({"parameters": {"timeout": "1"}}, "'timeout' must be a whole number.*received '1'"),
    ],
)
def test_a_malformed_request_says_what_was_received_and_what_expected(table, words):
    with pytest.raises(InvalidInput, match=f"model 'm': .*{words}"):
        _decode(_body(table))


@pytest.mark.parametrize("length", ["-1", "3", "1.0", "", "x", "٣", "9" * 5_000])
def test_a_header_length_that_cannot_be_is_refused(length):
    with pytest.raises(
        InvalidInput, match=f"{HEADER_LENGTH} must be a whole number up to the body's 2 bytes"
    ):
        _decode(b"{}", length)


def test_binary_data_that_no_input_takes_are_refused():
    with pytest.raises(InvalidInput, match="the inputs take 0 bytes of binary data, received 3"):
        _decode(b'{"inputs":[]}abc', "13")


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, InvalidInput, ">= 0"),
        ({"outputs": [{"name": "y", "parameters": {"classification": "2"}}]}, InvalidInput, "'2'"),
        (
            {"outputs": [{"name": "y", "parameters": {"shared_memory_region": 1}}]},
            InvalidInput,
            "1",
        ),
        (
            {"inputs": [_tensor(parameters={"shared_memory_region": "r"})]},
            InvalidInput,
            "'shared_memory_byte_size' must be specified",
        ),
        (
            {
                "inputs": [
                    _tensor(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 4})
                ]
            },
            NotFound,
            "Unable to find shared memory region: 'r'",
        ),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_with_the_models_name(table, error, words):
    with pytest.raises(error, match=f"model 'm': .*{words}"):
        _decode(_body(table))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | JSON,
        "datatype": st.sampled_from([*DATATYPES]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": st.lists(st.integers(0, 3), max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9) | JSON}) | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "inputs": st.lists(TENSORS, max_size=3) | JSON,
        "outputs": st.lists(TENSORS, max_size=3) | JSON,
        "parameters": JSON,
    },
)


def _read_or_refuse(body: bytes, header_length: str | None) -> None:
    try:
        request = _decode(body, header_length).request
    except RidgelineError as error:
        refusal = str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in request.inputs.values())
        return
    assert refusal.startswith("model 'm': ")


@given(REQUESTS, st.binary(max_size=12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_json_object_is_read_or_refused_but_nothing_else_is_raised(table, tail, binary):
    header = orjson.dumps(table)

    _read_or_refuse(header + tail if binary else header, str(len(header)) if binary else None)


@given(st.binary(max_size=60), st.none() | st.text(max_size=4))
@example(b"[" * 2_000, None)
@example(b'{"inputs":' + b"[" * 1_000 + b"]" * 1_000 + b"}", None)
@example(
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":' + b"[" * 900 + b"]" * 900 + b"}]}", None
)
@example(
    b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":[{"a":'
    + b"[" * 900
    + b"]" * 900
    + b"}]}]}",
    None,
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused_but_nothing_else_is_raised(body, header_length):
    _read_or_refuse(body, header_length)


def _request(**table):
    return _decode(_body({"inputs": [], **table}))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_official_client_reads_binary_answers(datatype):
    array = _array(datatype)
    response = InferResponse("m", "3", {"y": array, "z": array[:, :1]}, id="7")

    encoded = encode_response(response, decoded=_request(parameters={"binary_data_output": True}))
    result = triton.InferenceServerClient.parse_response_body(
        encoded.body, header_length=encoded.header_length
    )

    assert result.get_response()["id"] == "7"
    assert result.get_response()["model_version"] == "3"
    assert result.as_numpy("y").tolist() == array.tolist()
    assert result.as_numpy("z").tolist() == array[:, :1].tolist()


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("FP16", "BF16")])
def test_the_official_client_reads_json_answers(datatype):
    array = _array(datatype)

    encoded = encode_response(InferResponse("m", "3", {"y": array}), decoded=_request())
    result = triton.InferenceServerClient.parse_response_body(encoded.body)

    assert encoded.header_length is None
    assert "id" not in result.get_response()
    texts = [["é", ""]]  # which this client leaves as JSON has them
    assert result.as_numpy("y").tolist() == (texts if datatype == "BYTES" else array.tolist())


def test_each_output_may_be_asked_for_in_its_own_form():
    outputs = [
        {"name": "y", "parameters": {"binary_data": False}},
        {"name": "z"},
    ]
    one = np.ones(1, np.int8)

    encoded = encode_response(
        InferResponse("m", "3", {"y": one, "z": one}),
        decoded=_request(outputs=outputs, parameters={"binary_data_output": True}),
    )

    header = orjson.loads(encoded.body[: encoded.header_length])
    assert header["outputs"][0] == {"name": "y", "datatype": "INT8", "shape": [1], "data": [1]}
    assert header["outputs"][1] == {
        "name": "z",
        "datatype": "INT8",
        "shape": [1],
        "parameters": {"binary_data_size": 1},
    }
    assert encoded.body[encoded.header_length :] == b"\x01"


def test_every_float_of_a_json_answer_reads_back_as_itself():
    values = np.array([0.1, 1 / 3, 1e-45, 3.4028235e38, -0.0], dtype=np.float32)

    encoded = encode_response(InferResponse("m", "3", {"y": values}), decoded=_request())

    data = json.loads(encoded.body)["outputs"][0]["data"]
    assert np.array(data, dtype=np.float32).tobytes() == values.tobytes()


def test_an_empty_output_and_a_scalar_can_be_answered():
    outputs = {"empty": np.zeros((0, 3), np.float32), "scalar": np.array(2, np.int64)}

    encoded = encode_response(InferResponse("m", "3", outputs), decoded=_request())

    assert [(o["shape"], o["data"]) for o in json.loads(encoded.body)["outputs"]] == [
        ([0, 3], []),
        ([], [2]),
    ]


def test_an_output_that_json_cannot_carry_is_refused_naming_model_and_output():
    outputs = {"y": np.array([np.nan], np.float32)}

    with pytest.raises(InvalidInput, match=r"model 'm': output 'y' holds NaN.*binary data"):
        encode_response(InferResponse("m", "3", outputs), decoded=_request())
