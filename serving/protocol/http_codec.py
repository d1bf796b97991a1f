"""HTTP bodies to InferRequest and back: JSON, and the binary tensor data extension.

A body is a JSON object, followed by raw tensors where the header Inference-Header-Content-Length
says how long the JSON part is.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput
from serving.protocol.tensors import (
    check_parameters,
    checked_shape,
    from_numbers,
    from_raw,
    naming_model,
    schedule_parameters,
    to_numbers,
    to_raw,
)
from serving.request import InferRequest, InferResponse

HEADER_LENGTH = "Inference-Header-Content-Length"
_MAX_DIGITS = 18  # Python refuses to read numbers of thousands of digits, with an error of its own
_KINDS = {
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a whole number",
}


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A request, which of its outputs the client wants as binary data, and how much it sent so."""

    request: InferRequest
    binary_by_output: Mapping[str, bool]
    binary_by_default: bool
    binary_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A body, and the length of its JSON part where binary data follows (else None)."""

    body: bytes
    header_length: int | None


def decode_request(
    body: bytes,
    *,
    model_name: str,
    model_version: str,
    header_length: str | None,
    deadline_ns: int | None = None,
) -> DecodedRequest:
    """The request in a body. Raw tensors become views of the body.

    Raises InvalidInput for malformed JSON, fields of the wrong kind, and sizes that do not fit;
    Unsupported for a parameter of an extension that this server does not offer.
    """
    with naming_model(model_name):
        return _decoded(
            body,
            model_name=model_name,
            model_version=model_version,
            header_length=header_length,
            deadline_ns=deadline_ns,
        )


def _decoded(
    body: bytes,
    *,
    model_name: str,
    model_version: str,
    header_length: str | None,
    deadline_ns: int | None,
) -> DecodedRequest:
    length = _header_length(header_length, body=body)
    table = _json_object(body[:length])
    inputs = _inputs(table, binary=memoryview(body)[length:])
    outputs = _list_of_objects(table, "outputs")
    parameters = _parameters(table, of="the request")
    request = InferRequest(
        model_name=model_name,
        model_version=model_version,
        id=_optional(table, "id", kind=str, default="", of="the request"),
        inputs=inputs,
        outputs=tuple(_required(output, "name", kind=str, of="an output") for output in outputs),
        deadline_ns=deadline_ns,
        parameters=parameters,
        **schedule_parameters(parameters),
    )
    by_output = {}
    for output in outputs:
        of = f"output {output['name']!r}"
        wishes = _parameters(output, of=of)
        if "binary_data" in wishes:
            by_output[output["name"]] = _required(wishes, "binary_data", kind=bool, of=of)
    by_default = _optional(
        parameters, "binary_data_output", kind=bool, default=False, of="the request"
    )
    return DecodedRequest(
        request,
        binary_by_output=by_output,
        binary_by_default=by_default,
        binary_bytes=len(body) - length,
    )


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
            with naming_model(response.model_name):
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
    digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not digits or int(text) > len(body):
        raise InvalidInput(
            f"{HEADER_LENGTH} must be a whole number up to the body's {len(body)} bytes, "
            f"received {text[:60]!r}"
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
    of = f"input {name!r}"
    parameters = _parameters(tensor, of=of)
    if "binary_data_size" not in parameters:
        return None
    size: int = _required(parameters, "binary_data_size", kind=int, of=of)
    if "data" in tensor:
        raise InvalidInput(f"input {name!r} has both 'data' and 'binary_data_size'; expected one")
    if not 0 <= size <= left:
        raise InvalidInput(
            f"input {name!r} announces {size} bytes of binary data, {left} are left in the body"
        )
    return size


def _list_of_objects(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items: list[Any] = _optional(table, key, kind=list, default=[], of="the request")
    for item in items:
        if not isinstance(item, dict):
            raise InvalidInput(
                f"elements of {key!r} must be objects, received {reprlib.repr(item)}"
            )
    return items


def _parameters(table: dict[str, Any], *, of: str) -> dict[str, Any]:
    parameters: dict[str, Any] = _optional(table, "parameters", kind=dict, default={}, of=of)
    check_parameters(parameters, of=of)
    return parameters


def _optional(table: dict[str, Any], key: str, *, kind: type, default: Any, of: str) -> Any:
    return _required(table, key, kind=kind, of=of) if key in table else default


def _required(table: dict[str, Any], key: str, *, kind: type, of: str) -> Any:
    if key not in table:
        raise InvalidInput(f"{of} needs the field {key!r}, received only {', '.join(table)}")
    value = table[key]
    if type(value) is not kind:
        raise InvalidInput(
            f"the field {key!r} of {of} must be {_KINDS[kind]}, received {reprlib.repr(value)}"
        )
    return value
