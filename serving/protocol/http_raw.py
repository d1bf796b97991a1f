"""Raw requests: a body that is the one input itself, without any JSON (binary tensor data)."""

import math

import numpy as np

from ridgeline.datatypes import datatype
from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, ModelSpec
from serving.protocol.tensors import from_raw


def raw_inputs(body: bytes, *, spec: ModelSpec) -> dict[str, np.ndarray]:
    """The input of a raw request, as a batch of one; its one free axis follows from the size.

    A BYTES input must have one element, which is the body. Raises InvalidInput where the model has
    several inputs or the shape does not follow.
    """
    if len(spec.inputs) != 1:
        raise InvalidInput(
            f"Raw request must only have 1 input to be deduced but got {len(spec.inputs)} inputs "
            f"in {spec.name!r} model configuration"
        )
    (tensor,) = spec.inputs
    shape, data = tensor.shape, body
    if tensor.datatype == "BYTES":
        if tuple(shape) != (1,):
            raise InvalidInput(
                f"For BYTE datatype raw input {tensor.name!r}, the model must have input shape [1]"
            )
        data = len(body).to_bytes(4, "little") + body
    elif shape.count(FREE) > 1:
        raise InvalidInput(
            f"The shape of the raw input {tensor.name!r} can not be deduced because there are more "
            f"than one variable-sized dimension"
        )
    elif FREE in shape:
        row_bytes = _tensor_bytes(shape, datatype_name=tensor.datatype)
        shape = tuple(len(body) // row_bytes if size == FREE else size for size in shape)
    if spec.batches:
        shape = (1, *shape)
    array = from_raw(data, datatype_name=tensor.datatype, shape=shape, name=tensor.name)
    return {tensor.name: array}


def _tensor_bytes(shape: tuple[int, ...], *, datatype_name: str) -> int:
    """Bytes of a tensor whose free axes have one element; at least 1."""
    sizes = (1 if size == FREE else size for size in shape)
    return max(1, math.prod(sizes) * datatype(datatype_name).item_bytes)
