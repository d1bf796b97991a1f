"""Every datatype travels in every form that the protocols have for it, unchanged."""

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ridgeline.datatypes import DATATYPES
from tests.e2e.official_clients import ask, connect, same, tensors

# The field of InferTensorContents for each datatype that has one.
FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
}


def values(datatype):
    """Two values of a datatype, among them its largest."""
    dtype = DATATYPES[datatype].numpy
    if datatype == "BYTES":
        return np.array([["größe\0".encode(), b""]], dtype=np.object_)
    if datatype == "BOOL":
        return np.array([[True, False]])
    if dtype.kind in "iu":
        return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype=dtype)
    return np.array([[-0.0, 0.1]]).astype(dtype)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_travels_as_raw_bytes(gateway, protocol, datatype):
    array = values(datatype)

    answer = ask(gateway, protocol, f"identity_{datatype}", {"x": array}, request_id="7")

    assert same(answer.as_numpy("y"), array)
    response = answer.get_response()
    assert (response["id"] if protocol == "http" else response.id) == "7"


@pytest.mark.parametrize("datatype", FIELDS)
def test_every_datatype_travels_in_its_typed_field(gateway, datatype):
    array = values(datatype)
    request = service_pb2.ModelInferRequest(model_name=f"identity_{datatype}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, FIELDS[datatype]).extend(array.ravel().tolist())

    with grpc.insecure_channel(gateway.grpc_url) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)

    assert same(grpc_client.InferResult(response).as_numpy("y"), array)


@pytest.mark.parametrize("datatype", FIELDS)
def test_every_datatype_travels_as_json(gateway, datatype):
    array = values(datatype)
    with connect(gateway, "http") as client:
        answer = client.infer(
            f"identity_{datatype}",
            tensors("http", {"x": array}, binary=False),
            outputs=[http_client.InferRequestedOutput("y", binary_data=False)],
        )

    assert "parameters" not in answer.get_output("y")
    received = answer.as_numpy("y")
    if datatype == "BYTES":  # the client leaves texts as JSON has them
        received = np.array([[text.encode() for text in received.ravel()]], dtype=np.object_)
    assert same(received, array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_json_form_and_says_so(gateway, datatype):
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": [1, 2]}]}
    request = urllib.request.Request(
        f"http://{gateway.http_url}/v2/models/identity_{datatype}/infer", json.dumps(body).encode()
    )

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)

    with refused.value as answer:
        assert answer.code == 400
        text = json.load(answer)["error"]
    assert text == (
        f"model 'identity_{datatype}': {datatype} data of input 'x' can only be sent as binary data"
    )


def test_nan_and_infinity_travel_as_raw_bytes(gateway, protocol):
    array = np.array([[np.nan, -np.inf]], dtype=np.float32)

    assert same(ask(gateway, protocol, "identity_FP32", {"x": array}).as_numpy("y"), array)
