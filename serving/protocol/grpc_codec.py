"""ModelInferRequest to InferRequest, and InferResponse to ModelInferResponse."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput
from serving.protocol.outputs import Wishes, wish_of
from serving.protocol.parameters import EMPTY_FINAL, checked_parameters, schedule_parameters
from serving.protocol.placement import REGION, SharedInputs
from serving.protocol.tensors import (
    checked_shape,
    from_numbers,
    from_raw,
    known_datatype,
    naming_model,
    to_raw,
)
from serving.request import InferRequest, InferResponse
from serving.shared_memory import Regions

# The field of InferTensorContents that carries each datatype; FP16 and BF16 travel raw only.
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


_LEAST_UINT64 = 2**63


def decode_request(
    message: service_pb2.ModelInferRequest,
    *,
    deadline_ns: int | None,
    regions: Regions | None = None,
    headers: Mapping[str, str] | None = None,
) -> InferRequest:
    """The request that a message carries. Raw contents become views of the message's bytes.

    Inputs may lie in `regions`; `headers` are forwarded header fields, which become parameters and
    have the last word over those of the message. Raises InvalidInput for tensors that are
    malformed, doubled, or given in several forms; NotFound for an unknown region.
    """
    inputs: dict[str, np.ndarray] = {}
    with naming_model(message.model_name):
        for name, array in _tensors(message, shared=SharedInputs(regions or Regions())):
            if name in inputs:
                raise InvalidInput(f"input {name!r} is given twice")
            inputs[name] = array
        parameters = checked_parameters(_values(message.parameters), allowed=(EMPTY_FINAL,))
        schedule = schedule_parameters(parameters)
    return InferRequest(
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        inputs=inputs,
        outputs=tuple(output.name for output in message.outputs),
        deadline_ns=deadline_ns,
        parameters={**parameters, **headers} if headers else parameters,
        **schedule,
    )


def output_wishes(message: service_pb2.ModelInferRequest, *, regions: Regions) -> Wishes:
    """How the client wants the outputs.

    Raises InvalidInput for wishes that make no sense, NotFound for an unknown region.
    """
    if not any(output.parameters for output in message.outputs):
        return _NO_WISHES
    by_output = {}
    with naming_model(message.model_name):
        for output in message.outputs:
            of = f"output {output.name!r}"
            wish = wish_of(_values(output.parameters), regions=regions, of=of, least_classes=1)
            by_output[output.name] = wish
    return Wishes(by_output)


def encode_response(
    response: InferResponse, *, wishes: Wishes | None = None
) -> service_pb2.ModelInferResponse:
    """The message of a response, with raw contents in the order of the outputs.

    An output that went into shared memory has empty ones. Raises InvalidInput where an output
    cannot be given as wished.
    """
    message = service_pb2.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    for name, value in response.parameters.items():
        _set(message.parameters[name], value)
    wishes = wishes or _NO_WISHES
    for name, whole in response.outputs.items():
        array = wishes.shaped(whole, name=name)
        message.outputs.add(
            name=name, datatype=datatype_of_numpy(array.dtype).name, shape=array.shape
        )
        raw, place = to_raw(array), wishes[name].place
        if place is not None:
            place.write(raw, name=name)
        message.raw_output_contents.append(b"" if place else raw)
    return message


_NO_WISHES = Wishes()


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a message's parameters; those without any are left out."""
    return {
        name: getattr(value, choice)
        for name, value in parameters.items()
        if (choice := value.WhichOneof("parameter_choice")) is not None
    }


def _set(parameter: Any, value: object) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        if value < _LEAST_UINT64:
            parameter.int64_param = value
        else:
            parameter.uint64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = str(value)


def _tensors(
    message: service_pb2.ModelInferRequest, *, shared: SharedInputs
) -> Iterator[tuple[str, np.ndarray]]:
    raw = iter(message.raw_input_contents)
    count = len(message.raw_input_contents)
    needed = sum(REGION not in tensor.parameters for tensor in message.inputs)
    if count and count != needed:
        raise InvalidInput(
            f"expected one raw_input_contents entry for each of {needed} inputs outside shared "
            f"memory, received {count}"
        )
    for tensor in message.inputs:
        shape = checked_shape(tensor.shape, name=tensor.name)
        data: bytes | None = None
        if tensor.parameters:
            of = f"input {tensor.name!r}"
            data = shared.read(_values(tensor.parameters), of=of)
        if data is None and not count:
            yield tensor.name, _typed(tensor, shape=shape)
            continue
        if tensor.HasField("contents"):
            raise InvalidInput(
                f"contents field must not be specified when using "
                f"{'raw_input_contents' if data is None else 'shared memory'} for {tensor.name!r}"
            )
        if data is None:
            data = next(raw)
        array = from_raw(data, datatype_name=tensor.datatype, shape=shape, name=tensor.name)
        yield tensor.name, array


def _typed(
    tensor: service_pb2.ModelInferRequest.InferInputTensor, *, shape: tuple[int, ...]
) -> np.ndarray:
    field = _FIELDS.get(known_datatype(tensor.datatype, name=tensor.name).name)
    values = list(getattr(tensor.contents, field)) if field else []
    used = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if used not in ([], [field]):
        raise InvalidInput(
            f"{tensor.datatype} data of input {tensor.name!r} belongs into "
            f"{field or 'raw_input_contents'}, received {', '.join(used)}"
        )
    return from_numbers(values, datatype_name=tensor.datatype, shape=shape, name=tensor.name)
