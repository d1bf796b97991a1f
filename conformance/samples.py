"""Tensors to send: for every datatype a few telling values, as JSON, typed and raw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from ridgeline.datatypes import DATATYPES

# The field of InferTensorContents for each datatype that has one.
FIELDS = {
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
BINARY_ONLY = ("FP16", "BF16")


def sample(datatype: str) -> np.ndarray:
    """Three values of the datatype, its extremes among them."""
    dtype = DATATYPES[datatype].numpy
    if datatype == "BOOL":
        return np.array([True, False, True])
    if datatype == "BYTES":
        return np.array(["größe".encode(), b"", b"x"], dtype=np.object_)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.max, 1], dtype=dtype)
    return np.array([-0.5, 0.1, 1.5]).astype(dtype)


def raw(array: np.ndarray) -> bytes:
    """The raw bytes of an array, little-endian; BYTES with a length before each element."""
    if array.dtype == np.object_:
        return b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel())
    return array.tobytes()


def plain(array: np.ndarray) -> list[Any]:
    """The elements as JSON has them."""
    if array.dtype == np.object_:
        return [item.decode() for item in array.ravel()]
    values: list[Any] = array.ravel().tolist()
    return values


def hexadecimal(array: np.ndarray) -> str:
    """The raw bytes as the probes show them."""
    return raw(array).hex()


def json_input(
    array: np.ndarray, *, datatype: str, name: str = "INPUT0", shape: Sequence[int] | None = None
) -> dict[str, Any]:
    """An input of a JSON request."""
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape if shape is None else shape),
        "data": plain(array),
    }


def binary_input(
    array: np.ndarray, *, datatype: str, name: str = "INPUT0", shape: Sequence[int] | None = None
) -> dict[str, Any]:
    """An input whose bytes follow the JSON."""
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape if shape is None else shape),
        "parameters": {"binary_data_size": len(raw(array))},
    }


def message(model: str, *, version: str = "", id: str = "", **parameters: Any) -> Any:
    """A ModelInferRequest without tensors; parameters by the type of their values."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version, id=id)
    set_parameters(request.parameters, parameters)
    return request


def set_parameters(fields: Any, parameters: Mapping[str, Any]) -> None:
    """Fill a map of InferParameter."""
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(fields[name], kinds[type(value)], value)


def add_raw(
    request: Any,
    array: np.ndarray,
    *,
    datatype: str,
    name: str = "INPUT0",
    shape: Sequence[int] | None = None,
) -> Any:
    """Add an input in raw form; returns the request."""
    request.inputs.add(name=name, datatype=datatype, shape=array.shape if shape is None else shape)
    request.raw_input_contents.append(raw(array))
    return request


def add_typed(
    request: Any,
    array: np.ndarray,
    *,
    datatype: str,
    name: str = "INPUT0",
    field: str | None = None,
) -> Any:
    """Add an input in its typed field; returns the request."""
    tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    values = array.ravel().tolist()
    getattr(tensor.contents, field or FIELDS[datatype]).extend(values)
    return request


def output(
    array: np.ndarray, *, datatype: str, name: str = "OUTPUT0", shape: Sequence[int] | None = None
) -> dict[str, Any]:
    """The pattern of an output that holds these values, in whatever form."""
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape if shape is None else shape),
        "hex": hexadecimal(array),
    }


def from_plain(values: Sequence[Any], *, datatype: str) -> str | None:
    """The hexadecimal form of a JSON list of that datatype; None where it does not fit."""
    if datatype == "BYTES":
        if not all(isinstance(value, str) for value in values):
            return None
        return hexadecimal(
            np.array([value.encode() for value in values] + [None], dtype=object)[:-1]
        )
    if any(isinstance(value, str | list | dict) or value is None for value in values):
        return None
    dtype = DATATYPES[datatype].numpy if datatype in DATATYPES else None
    if dtype is None or (dtype.kind in "iu" and any(not _whole(value) for value in values)):
        return None
    try:
        return hexadecimal(np.array(values, dtype=dtype))
    except (OverflowError, ValueError):
        return None


def _whole(value: Any) -> bool:
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))
