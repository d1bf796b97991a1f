"""HTTP bodies to InferRequest and back: JSON, and the binary tensor data extension.

A body is a JSON object, followed by raw tensors where the header Inference-Header-Content-Length
says how long the JSON part is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput
from serving.protocol.tensors import checked_shape, from_numbers, from_raw, to_numbers, to_raw
from serving.request import InferRequest, InferResponse

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A request, and which of its outputs the client wants as binary data."""

    request: InferRequest
    binary_by_output: Mapping[str, bool]
    binary_by_default: bool


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A body, and the length of its JSON part where binary data follows (else None)."""

    body: bytes
    header_length: int | None


def decode_request(
    body: bytes, *, model_name: str, model_version: str, header_length: str | None
) -> DecodedRequest:
    """The request in a body. Raw tensors become views of the body.

    Raises InvalidInput for malformed JSON, fields of the wrong kind, and sizes that do not fit.
    """
    length = _header_length(header_length, body=body)
    table = _json_object(body[:length])
    inputs = _inputs(table, binary=memoryview(body)[length:])
    outputs = _list_of_objects(table, "outputs")
    request = InferRequest(
        model_name=model_name,
        model_version=model_version,
        id=_typed(table, "id", kind=str, default=""),
        inputs=inputs,
        outputs=tuple(_required(output, "name", kind=str, of="an output") for output in outputs),
    )
    by_output = {}
    for output in outputs:
        parameters = _typed(output, "parameters", kind=dict, default={})
        if "binary_data" in parameters:
            by_output[output["name"]] = _typed(parameters, "binary_data", kind=bool, default=False)
    parameters = _typed(table, "parameters", kind=dict, default={})
    by_default = _typed(parameters, "binary_data_output", kind=bool, default=False)
    return DecodedRequest(request, binary_by_output=by_output, binary_by_default=by_default)


def encode_response(response: InferResponse, *, decoded: DecodedRequest) -> EncodedResponse:
    """The body of a response. Raises InvalidInput for an output that JSON cannot carry."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, array in response.outputs.items():
        output: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of_numpy(array.dtype).name,
            "shape": list(array.shape),
        }
        if decoded.binary_by_output.get(name, decoded.binary_by_default):
            binary.append(to_raw(array))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = to_numbers(array, name=name)
        outputs.append(output)
    table: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    if response.id:
        table["id"] = response.id
    header = orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return EncodedResponse(body=header, header_length=None)
    return EncodedResponse(body=b"".join((header, *binary)), header_length=len(header))


def _header_length(text: str | None, *, body: bytes) -> int:
    if text is None:
        return len(body)
    if not text.isascii() or not text.isdecimal() or int(text) > len(body):
        raise InvalidInput(
            f"{HEADER_LENGTH} must be a whole number up to the body's {len(body)} bytes, "
            f"received {text!r}"
        )
    return int(text)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        table = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not valid JSON: {error}") from error
    if not isinstance(table, dict):
        raise InvalidInput(f"the request must be a JSON object, received a {type(table).__name__}")
    return table


def _inputs(table: dict[str, Any], *, binary: memoryview) -> dict[str, np.ndarray]:
    inputs: dict[str, np.ndarray] = {}
    position = 0
    for tensor in _list_of_objects(table, "inputs"):
        name = _required(tensor, "name", kind=str, of="an input")
        if name in inputs:
            raise InvalidInput(f"input {name!r} is given twice")
        datatype_name = _required(tensor, "datatype", kind=str, of=f"input {name!r}")
        shape = checked_shape(
            _required(tensor, "shape", kind=list, of=f"input {name!r}"), name=name
        )
        size = _binary_size(tensor, name=name, left=len(binary) - position)
        if size is None:
            inputs[name] = from_numbers(
                _required(tensor, "data", kind=list, of=f"input {name!r}"),
                datatype_name=datatype_name,
                shape=shape,
                name=name,
            )
        else:
            raw = binary[position : position + size]
            inputs[name] = from_raw(raw, datatype_name=datatype_name, shape=shape, name=name)
            position += size
    if position != len(binary):
        raise InvalidInput(
            f"the inputs take {position} bytes of binary data, received {len(binary)}"
        )
    return inputs


def _binary_size(tensor: dict[str, Any], *, name: str, left: int) -> int | None:
    parameters = _typed(tensor, "parameters", kind=dict, default={})
    if "binary_data_size" not in parameters:
        return None
    size: int = _typed(parameters, "binary_data_size", kind=int, default=0)
    if "data" in tensor:
        raise InvalidInput(f"input {name!r} has both 'data' and 'binary_data_size'; expected one")
    if not 0 <= size <= left:
        raise InvalidInput(
            f"input {name!r} announces {size} bytes of binary data, {left} are left in the body"
        )
    return size


def _list_of_objects(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items: list[Any] = _typed(table, key, kind=list, default=[])
    for item in items:
        if not isinstance(item, dict):
            raise InvalidInput(f"elements of {key!r} must be objects, received {item!r}")
    return items


def _required(table: dict[str, Any], key: str, *, kind: type, of: str) -> Any:
    if key not in table:
        raise InvalidInput(f"{of} needs the field {key!r}, received only {', '.join(table)}")
    return _typed(table, key, kind=kind, default=None)


def _typed(table: dict[str, Any], key: str, *, kind: type, default: Any) -> Any:
    value = table.get(key, default)
    if value is not default and type(value) is not kind:
        words = {
            str: "a text",
            list: "a list",
            dict: "an object",
            bool: "a boolean",
            int: "a whole number",
        }
        raise InvalidInput(f"the field {key!r} must be {words[kind]}, received {str(value)[:60]!r}")
    return value
