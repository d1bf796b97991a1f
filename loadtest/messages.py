"""Requests as they go over the wire, and answers as arrays: the same for every protocol.

Requests are made beforehand, so that sending one costs little; answers are read after a run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from loadtest.sample_files import Array
from loadtest.samples import Batch
from ridgeline.datatypes import datatype, datatype_of_numpy
from ridgeline.errors import CorruptData

SERVICE = "/inference.GRPCInferenceService/"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Message:
    """One inference request: the path of the RPC or resource, its bytes, and headers of HTTP."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def request(
    batch: Batch, *, protocol: str, model: str, version: str = "", sequence: int = 0
) -> Message:
    """A batch as a request of that protocol ("grpc" or "http"), tensors as raw bytes.

    With the number of a `sequence`, it is the first and last step of that.
    """
    if protocol == "grpc":
        message = service_pb2.ModelInferRequest(model_name=model, model_version=version)
        return Message(SERVICE + "ModelInfer", _grpc_body(batch, message, sequence=sequence))
    body, headers = _http_body(batch, sequence=sequence)
    versions = f"/versions/{quote(version, safe='')}" if version else ""
    return Message(f"/v2/models/{quote(model, safe='')}{versions}/infer", body, headers)


def outputs(payload: bytes, *, protocol: str) -> dict[str, Array]:
    """The tensors of an answer. Raises CorruptData where it is none."""
    try:
        return _grpc_outputs(payload) if protocol == "grpc" else _http_outputs(payload)
    except (DecodeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptData(f"this is no answer of the protocol: {error!r}") from error


def _grpc_body(batch: Batch, message: service_pb2.ModelInferRequest, *, sequence: int) -> bytes:
    if sequence:
        message.parameters["sequence_id"].int64_param = sequence
        message.parameters["sequence_start"].bool_param = True
        message.parameters["sequence_end"].bool_param = True
    for name, array in batch.items():
        kind = datatype_of_numpy(array.dtype).name
        message.inputs.add(name=name, datatype=kind, shape=array.shape)
        message.raw_input_contents.append(_raw(array))
    return bytes(message.SerializeToString())


def _http_body(batch: Batch, *, sequence: int) -> tuple[bytes, dict[str, str]]:
    inputs = []
    for name, array in batch.items():
        tensor = InferInput(name, list(array.shape), datatype_of_numpy(array.dtype).name)
        inputs.append(tensor.set_data_from_numpy(array, binary_data=True))
    body, header_length = InferenceServerClient.generate_request_body(
        inputs,
        sequence_id=sequence,
        sequence_start=bool(sequence),
        sequence_end=bool(sequence),
    )
    return body, {} if header_length is None else {HEADER_LENGTH: str(header_length)}


def _grpc_outputs(payload: bytes) -> dict[str, Array]:
    response = service_pb2.ModelInferResponse.FromString(payload)
    if len(response.raw_output_contents) == len(response.outputs):
        pairs = zip(response.outputs, response.raw_output_contents, strict=True)
        return {each.name: _array(raw, each.datatype, each.shape) for each, raw in pairs}
    return {each.name: _typed(each) for each in response.outputs}


def _typed(tensor: Any) -> Array:
    """A tensor whose values stand in the message, in the field for its datatype."""
    _, values = next(iter(tensor.contents.ListFields()), (None, []))
    kind = datatype(tensor.datatype).numpy
    return np.array(list(values), dtype=kind).reshape(tuple(tensor.shape))


def _http_outputs(payload: bytes) -> dict[str, Array]:
    """The header is JSON; what follows it are the tensors that it gives the sizes of, in turn."""
    text = payload.decode("latin-1")  # one character a byte: only the header is looked at
    _, end = json.JSONDecoder().raw_decode(text)
    header = json.loads(payload[:end])
    found = {}
    for tensor in header["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            kind = datatype(tensor["datatype"]).numpy
            array = np.array(tensor["data"], dtype=kind).reshape(tensor["shape"])
        else:
            array = _array(payload[end : end + size], tensor["datatype"], tensor["shape"])
            end += size
        found[tensor["name"]] = array
    return found


def _array(raw: bytes, name: str, shape: Any) -> Array:
    if name == "BYTES":
        return np.asarray(deserialize_bytes_tensor(raw)).reshape(tuple(shape))
    return np.frombuffer(raw, dtype=datatype(name).numpy).reshape(tuple(shape))


def _raw(array: Array) -> bytes:
    """The tensor as raw_input_contents holds it: row-major, little-endian."""
    if array.dtype.kind in "OSU":
        serialised: Array = serialize_byte_tensor(array.astype(np.object_))
        return bytes(serialised.item()) if serialised.size else b""
    return array.tobytes()
