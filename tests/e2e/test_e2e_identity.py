"""Whatever tensor a client can encode comes back as it was, on every path to an identity model."""

import http.client

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from conformance import repository
from conformance.grpc_probe import GrpcProbe
from conformance.http_probe import HttpProbe
from conformance.samples import (
    BINARY_ONLY,
    FIELDS,
    add_raw,
    add_typed,
    binary_input,
    hexadecimal,
    json_input,
    message,
    raw,
    set_parameters,
)
from conformance.shared_region import region
from ridgeline.datatypes import DATATYPES

NAME, HALF = "identity", 4096  # the first half of the region is for inputs
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(str.encode)
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def probes(gateway_over, front_end, tmp_path_factory):
    """Both probes of a gateway over the test repository."""
    folder = tmp_path_factory.mktemp("identity")
    repository.write(folder / "models")
    flags = (f"--front-end={front_end}",)
    gateway = gateway_over(folder / "models", *flags, errors=folder / "stderr")
    grpc = GrpcProbe(gateway.grpc_url, timeout_s=20)
    yield grpc, HttpProbe(gateway.http_url, timeout_s=20)
    grpc.close()
    code, _, errors = gateway.stop()
    assert code == 0, errors


@pytest.fixture(scope="module")
def memory(probes):
    """A region of shared memory that is registered."""
    with region(2 * HALF) as made:
        body = {"key": made.key, "offset": 0, "byte_size": 2 * HALF}
        answer = probes[1].post(f"/v2/systemsharedmemory/region/{NAME}/register", body)
        assert answer.status == "200", answer
        yield made
        probes[1].post(f"/v2/systemsharedmemory/region/{NAME}/unregister")


@st.composite
def tensors(draw, datatypes):
    """A datatype and an array of it, of any bits: NaN of every kind, too."""
    datatype = draw(st.sampled_from(sorted(datatypes)))
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6))
    dtype = DATATYPES[datatype].numpy
    if datatype == "BYTES":
        return datatype, draw(arrays(np.object_, shape, elements=TEXTS, fill=st.nothing()))
    if datatype == "BOOL":
        return datatype, draw(arrays(np.bool_, shape))
    bits = draw(arrays(np.dtype(f"u{dtype.itemsize}"), shape))
    return datatype, bits.view(dtype)


def same(answer, datatype, array):
    """Whether the one output holds what went in."""
    [made] = answer.body["outputs"]
    return (made["datatype"], made["shape"], made["hex"]) == (
        datatype,
        list(array.shape),
        hexadecimal(array),
    )


def model(datatype):
    return f"plain_{datatype.lower()}"


@given(tensor=tensors(DATATYPES))
@SETTINGS
def test_raw_contents_come_back_over_grpc(probes, tensor):
    datatype, array = tensor
    answer = probes[0].infer(add_raw(message(model(datatype)), array, datatype=datatype))

    assert same(answer, datatype, array), answer


@given(tensor=tensors(FIELDS))
@SETTINGS
def test_typed_contents_come_back_over_grpc(probes, tensor):
    datatype, array = tensor
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)  # protobuf keeps no bits
    answer = probes[0].infer(add_typed(message(model(datatype)), array, datatype=datatype))

    assert same(answer, datatype, array), answer


@given(tensor=tensors(DATATYPES))
@SETTINGS
def test_binary_data_come_back_over_http(probes, tensor):
    datatype, array = tensor
    body = {
        "inputs": [binary_input(array, datatype=datatype)],
        "parameters": {"binary_data_output": True},
    }
    answer = probes[1].infer(model(datatype), body, binary=raw(array))

    assert same(answer, datatype, array), answer


@given(tensor=tensors(set(DATATYPES) - set(BINARY_ONLY)))
@SETTINGS
def test_json_comes_back_over_http(probes, tensor):
    datatype, array = tensor
    if array.dtype.kind == "f":
        array = np.nan_to_num(array)  # JSON has no NaN and no infinity
    body = {"inputs": [json_input(array, datatype=datatype)]}
    answer = probes[1].infer(model(datatype), body)

    assert same(answer, datatype, array), answer


def places(array, shift):
    """Where a tensor and its copy lie in the region, and what tells a server so."""
    size = len(raw(array))
    return (shift, HALF + shift), [
        {
            "shared_memory_region": NAME,
            "shared_memory_byte_size": size,
            "shared_memory_offset": offset,
        }
        for offset in (shift, HALF + shift)
    ]


@given(tensor=tensors(DATATYPES), shift=st.integers(0, 9))
@SETTINGS
def test_shared_memory_comes_back_over_http(probes, memory, tensor, shift):
    datatype, array = tensor
    (begin, copy), (there, back) = places(array, shift)
    memory.write(raw(array), at=begin)
    memory.write(b"\xff" * len(raw(array)), at=copy)
    body = {
        "inputs": [
            {
                "name": "INPUT0",
                "datatype": datatype,
                "shape": list(array.shape),
                "parameters": there,
            }
        ],
        "outputs": [{"name": "OUTPUT0", "parameters": back}],
    }
    answer = probes[1].infer(model(datatype), body)

    assert answer.status == "200", answer
    assert answer.body["outputs"][0]["shape"] == list(array.shape)
    assert memory.read(len(raw(array)), at=copy) == raw(array)


@given(tensor=tensors(DATATYPES), shift=st.integers(0, 9))
@SETTINGS
def test_shared_memory_comes_back_over_grpc(probes, memory, tensor, shift):
    datatype, array = tensor
    (begin, copy), (there, back) = places(array, shift)
    memory.write(raw(array), at=begin)
    memory.write(b"\xff" * len(raw(array)), at=copy)
    request = message(model(datatype))
    given_input = request.inputs.add(name="INPUT0", datatype=datatype, shape=array.shape)
    set_parameters(given_input.parameters, there)
    set_parameters(request.outputs.add(name="OUTPUT0").parameters, back)
    answer = probes[0].infer(request)

    assert answer.status == "OK", answer
    assert answer.body["outputs"][0]["shape"] == list(array.shape)
    assert memory.read(len(raw(array)), at=copy) == raw(array)


@given(data=st.binary(max_size=300), header_length=st.none() | st.text("0123456789-", max_size=5))
@SETTINGS
def test_any_body_gets_a_defined_answer_and_the_gateway_lives(probes, data, header_length):
    answer = probes[1].infer("plain_fp32", data, header_length=header_length)

    assert answer.status in ("200", "400", "500")
    assert answer.status != "500" or "internal error" not in answer.body["error"]
    assert probes[1].get("/v2/health/live").status == "200"


@given(data=st.binary(max_size=300))
@SETTINGS
def test_any_bytes_on_the_socket_get_an_answer_or_the_end_and_the_gateway_lives(probes, data):
    try:
        status, _, _ = probes[1].raw(b"X" + data + b"\0\r\n\r\n")  # no HTTP, whatever it is
        assert 100 <= status < 600
    except (ConnectionError, http.client.HTTPException):
        pass  # the connection was ended
    assert probes[1].get("/v2/health/live").status == "200"


@given(
    method=st.sampled_from(["ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "Nope"]),
    data=st.binary(max_size=300),
)
@SETTINGS
def test_any_message_gets_a_defined_status_and_the_gateway_lives(probes, method, data):
    answer = probes[0].call(method, data)

    assert answer.status in (
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "UNKNOWN", "INTERNAL",
    ), answer  # fmt: skip
    assert probes[0].call("ServerLive").body == {"live": True}
