"""Whether a request fits the contract of its model."""

import numpy as np

from ridgeline.datatypes import datatype, datatype_of_numpy
from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.request import InferRequest, Tensors


def check(request: InferRequest, *, spec: ModelSpec) -> None:
    """Compare a request with a model's contract. Raises InvalidInput naming tensor and model."""
    expected = {tensor.name: tensor for tensor in spec.inputs}
    if request.inputs.keys() != expected.keys():
        _check_names(request, expected=expected, spec=spec)
    for name, array in request.inputs.items():
        _check_tensor(array, tensor=expected[name], spec=spec)
    if spec.batches:
        _check_batch(request.inputs, spec=spec)
    known = [tensor.name for tensor in spec.outputs]
    for name in request.outputs:
        if name not in known:
            raise InvalidInput(
                f"unexpected inference output {name!r} for model {spec.name!r}; "
                f"its outputs are {', '.join(known)}"
            )


def _check_names(
    request: InferRequest, *, expected: dict[str, TensorSpec], spec: ModelSpec
) -> None:
    for name in request.inputs:
        if name not in expected:
            raise InvalidInput(
                f"unexpected inference input {name!r} for model {spec.name!r}; "
                f"expected {', '.join(expected)}"
            )
    absent = [tensor for name, tensor in expected.items() if name not in request.inputs]
    missing = [tensor.name for tensor in absent if not tensor.optional]
    if missing:
        least = sum(not tensor.optional for tensor in expected.values())
        number = len(expected) if least == len(expected) else f"{least} to {len(expected)}"
        raise InvalidInput(
            f"expected {number} inputs but got {len(request.inputs)} inputs for model "
            f"{spec.name!r}; missing {', '.join(missing)}"
        )
    if spec.batches and not request.inputs:
        raise InvalidInput(
            f"a request to model {spec.name!r} needs one of its optional inputs at least, "
            f"which tells the batch size: {', '.join(expected)}"
        )


def _check_tensor(array: np.ndarray, *, tensor: TensorSpec, spec: ModelSpec) -> None:
    expected = datatype(tensor.datatype)
    if array.dtype != expected.numpy:
        raise InvalidInput(
            f"inference input {tensor.name!r} has datatype {datatype_of_numpy(array.dtype).name}, "
            f"model {spec.name!r} expects {tensor.datatype}"
        )
    shape = spec.full_shape(tensor)
    if len(shape) != array.ndim or any(
        size not in (FREE, got) for size, got in zip(shape, array.shape, strict=True)
    ):
        raise InvalidInput(
            f"unexpected shape for input {tensor.name!r} for model {spec.name!r}. "
            f"Expected {list(shape)}, got {list(array.shape)}"
        )


def _check_batch(inputs: Tensors, *, spec: ModelSpec) -> None:
    rows = {name: array.shape[0] for name, array in inputs.items()}
    first = next(iter(rows.values()))
    if any(count != first for count in rows.values()):
        raise InvalidInput(f"inputs of model {spec.name!r} must have equal batch sizes, got {rows}")
    if not 1 <= first <= spec.max_batch_size:
        raise InvalidInput(
            f"inference request batch-size must be between 1 and {spec.max_batch_size} "
            f"for {spec.name!r}, got {first}"
        )
