"""HTTP bodies to InferRequest and back: JSON, and the binary tensor data extension.

A body is a JSON object, followed by raw tensors where the header Inference-Header-Content-Length
says how long the JSON part is.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput, Malformed
from ridgeline.model import ModelSpec
from serving.protocol.http_raw import raw_inputs
from serving.protocol.json_body import any_numbers, json_object, optional, required
from serving.protocol.outputs import OUTPUT_PARAMETERS, Wishes, wish_of
from serving.protocol.parameters import (
    SCHEDULE_PARAMETERS,
    checked_parameters,
    schedule_parameters,
)
from serving.protocol.placement import REGION, SharedInputs
from serving.protocol.tensors import (
    checked_shape,
    from_numbers,
    from_raw,
    naming_model,
    to_numbers,
    to_raw,
)
from serving.request import InferRequest, InferResponse
from serving.shared_memory import Regions

HEADER_LENGTH = "Inference-Header-Content-Length"
_SIZE = "binary_data_size"
_MAX_DIGITS = 18  # Python refuses to read numbers of thousands of digits, with an error of its own


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A request, how its outputs are wanted, and how much of it came as binary data.

    It `is_plain` where nothing else would have to be known to answer its like; `any_number` is that
    of its head.
    """

    request: InferRequest
    wishes: Wishes
    binary_by_default: bool
    binary_bytes: int = 0
    is_plain: bool = True
    any_number: bool = False

    def is_binary(self, name: str) -> bool:
        """Whether the client wants that output as binary data."""
        wished = self.wishes[name].binary
        return self.binary_by_default if wished is None else wished


@dataclass(frozen=True, slots=True)
class Head:
    """What stands around a body: path, header fields, and what these refer to.

    `header_length` is the field Inference-Header-Content-Length; `headers` are forwarded header
    fields, which become parameters and have the last word over those of the body; `spec` is asked
    for what a raw request leaves out; with `any_number` NaN and infinity are numbers, as in Triton.
    """

    model_name: str
    model_version: str
    header_length: str | None = None
    deadline_ns: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    regions: Regions | None = None
    spec: Callable[[], ModelSpec] | None = None
    any_number: bool = False


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """A body, and the length of its JSON part where binary data follows (else None)."""

    body: bytes
    header_length: int | None


def decode_request(body: bytes, *, head: Head) -> DecodedRequest:
    """The request in a body. Raw tensors become views of the body.

    Raises InvalidInput for malformed JSON, fields of the wrong kind, and sizes that do not fit;
    NotFound for an unknown region of shared memory.
    """
    with naming_model(head.model_name):
        length = _header_length(head.header_length, body=body)
        if not length and head.header_length is not None and head.spec is not None:
            return _decoded_raw(body, head=head, spec=head.spec())
        return _decoded(body, head=head, length=length)


def _decoded_raw(body: bytes, *, head: Head, spec: ModelSpec) -> DecodedRequest:
    request = _request(head, inputs=raw_inputs(body, spec=spec), table={}, parameters={})
    return DecodedRequest(request, Wishes(), binary_by_default=True, is_plain=False)


def _decoded(body: bytes, *, head: Head, length: int) -> DecodedRequest:
    regions = head.regions or Regions()
    if not body:
        raise InvalidInput("the request is not valid JSON: the body is empty")
    table = json_object(body[:length], any_number=head.any_number)
    inputs = _inputs(table, binary=memoryview(body)[length:], shared=SharedInputs(regions))
    outputs = _list_of_objects(table, "outputs")
    parameters = checked_parameters(_parameters(table, of="the request"))
    request = _request(
        head, inputs=inputs, table=table, parameters=parameters, outputs=_names(outputs)
    )
    by_output, is_plain = {}, _PLAIN_REQUEST.issuperset(request.parameters)
    for output in outputs:
        of = f"output {output['name']!r}"
        wishes = _parameters(output, of=of)
        by_output[output["name"]] = wish = wish_of(wishes, regions=regions, of=of)
        is_plain = is_plain and not (wish.classes or wish.place)
        is_plain = is_plain and OUTPUT_PARAMETERS.issuperset(wishes)
    by_default = optional(
        parameters, "binary_data_output", kind=bool, default=False, of="the request"
    )
    return DecodedRequest(
        request,
        wishes=Wishes(by_output),
        binary_by_default=by_default,
        binary_bytes=len(body) - length,
        is_plain=is_plain,
        any_number=head.any_number,
    )


_PLAIN_REQUEST = SCHEDULE_PARAMETERS | {"binary_data_output"}


def _request(
    head: Head,
    *,
    inputs: Mapping[str, np.ndarray],
    table: dict[str, Any],
    parameters: Mapping[str, Any],
    outputs: tuple[str, ...] = (),
) -> InferRequest:
    return InferRequest(
        model_name=head.model_name,
        model_version=head.model_version,
        id=optional(table, "id", kind=str, default="", of="the request"),
        inputs=inputs,
        outputs=outputs,
        deadline_ns=head.deadline_ns,
        parameters={**parameters, **head.headers},
        **schedule_parameters(parameters),
    )


def _names(outputs: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(required(output, "name", kind=str, of="an output") for output in outputs)


def encode_response(response: InferResponse, *, decoded: DecodedRequest) -> EncodedResponse:
    """The body of a response. Raises InvalidInput for an output that JSON cannot carry."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, whole in response.outputs.items():
        array = decoded.wishes.shaped(whole, name=name)
        place = decoded.wishes[name].place
        output: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of_numpy(array.dtype).name,
            "shape": list(array.shape),
        }
        if place is not None:
            place.write(to_raw(array), name=name)
        elif decoded.is_binary(name):
            binary.append(to_raw(array))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            with naming_model(response.model_name):
                numbers = to_numbers(array, name=name, any_number=decoded.any_number)
            output["data"] = any_numbers(numbers) if decoded.any_number else numbers
        outputs.append(output)
    table: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    if response.id:
        table["id"] = response.id
    if response.parameters:
        table["parameters"] = dict(response.parameters)
    header = orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return EncodedResponse(body=header, header_length=None)
    return EncodedResponse(body=b"".join((header, *binary)), header_length=len(header))


def _header_length(text: str | None, *, body: bytes) -> int:
    if text is None:
        return len(body)
    digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not digits or int(text) > len(body):
        fraction = text[:1].isdecimal() and not text.isdecimal()  # where Triton reads the beginning
        raise (Malformed if fraction else InvalidInput)(
            f"{HEADER_LENGTH} must be a whole number up to the body's {len(body)} bytes, "
            f"received {text[:60]!r}"
        )
    return int(text)


def _inputs(
    table: dict[str, Any], *, binary: memoryview, shared: SharedInputs
) -> dict[str, np.ndarray]:
    inputs: dict[str, np.ndarray] = {}
    position = 0
    for tensor in _list_of_objects(table, "inputs", needed=True):
        name = required(tensor, "name", kind=str, of="an input")
        if name in inputs:
            raise InvalidInput(f"input {name!r} is given twice")
        of = f"input {name!r}"
        datatype_name = required(tensor, "datatype", kind=str, of=of)
        shape = checked_shape(required(tensor, "shape", kind=list, of=of), name=name)
        parameters = _parameters(tensor, of=of)
        raw: bytes | memoryview | None = None
        if _SIZE in parameters or REGION in parameters:
            _check_form(tensor, parameters=parameters, of=of)
            raw = shared.read(parameters, of=of)
            if raw is None:
                size = _binary_size(parameters, of=of, left=len(binary) - position)
                raw = binary[position : position + size]
                position += size
        if raw is None:
            if "data" not in tensor:
                raise InvalidInput(
                    f"{of} needs the field 'data', received only {', '.join(tensor)}"
                )
            inputs[name] = from_numbers(
                required(tensor, "data", kind=list, of=of),
                datatype_name=datatype_name,
                shape=shape,
                name=name,
            )
        else:
            inputs[name] = from_raw(raw, datatype_name=datatype_name, shape=shape, name=name)
    if position != len(binary):
        raise InvalidInput(
            f"the inputs take {position} bytes of binary data, received {len(binary)}"
        )
    return inputs


def _check_form(tensor: dict[str, Any], *, parameters: Mapping[str, Any], of: str) -> None:
    forms = [name for name in (_SIZE, REGION) if name in parameters]
    forms += ["data"] if "data" in tensor else []
    if len(forms) > 1:
        raise InvalidInput(f"{of} has both {' and '.join(map(repr, forms))}; expected one of them")


def _binary_size(parameters: Mapping[str, Any], *, of: str, left: int) -> int:
    size: int = required(parameters, _SIZE, kind=int, of=of)
    if size < 0:
        raise Malformed(f"{_SIZE!r} of {of} must not be negative, received {size}")
    if size > left:
        raise InvalidInput(
            f"{of} announces {size} bytes of binary data, {left} are left in the body"
        )
    return size


def _list_of_objects(
    table: dict[str, Any], key: str, *, needed: bool = False
) -> list[dict[str, Any]]:
    items: list[Any] = (
        required(table, key, kind=list, of="the request") if needed or key in table else []
    )
    for item in items:
        if not isinstance(item, dict):
            raise InvalidInput(
                f"elements of {key!r} must be objects, received {reprlib.repr(item)}"
            )
    return items


def _parameters(table: dict[str, Any], *, of: str) -> dict[str, Any]:
    parameters: dict[str, Any] = optional(table, "parameters", kind=dict, default={}, of=of)
    return parameters
