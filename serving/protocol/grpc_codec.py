"""ModelInferRequest to InferRequest, and InferResponse to ModelInferResponse."""

from collections.abc import Iterator

import numpy as np
from tritonclient.grpc import service_pb2

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput
from serving.protocol.tensors import (
    check_parameters,
    checked_shape,
    from_numbers,
    from_raw,
    known_datatype,
    naming_model,
    schedule_parameters,
    to_raw,
)
from serving.request import InferRequest, InferResponse, Parameter

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


def decode_request(
    message: service_pb2.ModelInferRequest, *, deadline_ns: int | None
) -> InferRequest:
    """The request that a message carries. Raw contents become views of the message's bytes.

    Raises InvalidInput for tensors that are malformed, doubled, or given in both forms; Unsupported
    for a parameter of an extension that this server does not offer.
    """
    inputs: dict[str, np.ndarray] = {}
    parameters: dict[str, Parameter] = {
        name: getattr(value, choice)
        for name, value in message.parameters.items()
        if (choice := value.WhichOneof("parameter_choice")) is not None
    }
    with naming_model(message.model_name):
        for name, array in _tensors(message):
            if name in inputs:
                raise InvalidInput(f"input {name!r} is given twice")
            inputs[name] = array
        for output in message.outputs:
            check_parameters(output.parameters, of=f"output {output.name!r}")
        schedule = schedule_parameters(parameters)
    return InferRequest(
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        inputs=inputs,
        outputs=tuple(output.name for output in message.outputs),
        deadline_ns=deadline_ns,
        parameters=parameters,
        **schedule,
    )


def encode_response(response: InferResponse) -> service_pb2.ModelInferResponse:
    """The message of a response, with raw contents in the order of the outputs."""
    message = service_pb2.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    for name, array in response.outputs.items():
        message.outputs.add(
            name=name, datatype=datatype_of_numpy(array.dtype).name, shape=array.shape
        )
        message.raw_output_contents.append(to_raw(array))
    return message


def _tensors(message: service_pb2.ModelInferRequest) -> Iterator[tuple[str, np.ndarray]]:
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(
            f"expected one raw_input_contents entry for each of {len(message.inputs)} inputs, "
            f"received {len(raw)}"
        )
    for position, tensor in enumerate(message.inputs):
        check_parameters(tensor.parameters, of=f"input {tensor.name!r}")
        shape = checked_shape(tensor.shape, name=tensor.name)
        if not raw:
            yield tensor.name, _typed(tensor, shape=shape)
            continue
        if tensor.HasField("contents"):
            raise InvalidInput(
                f"contents field must not be specified when using raw_input_contents "
                f"for {tensor.name!r}"
            )
        array = from_raw(
            raw[position], datatype_name=tensor.datatype, shape=shape, name=tensor.name
        )
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
