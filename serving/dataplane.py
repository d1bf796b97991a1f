"""What every protocol offers, without any protocol in it: health, metadata, inference."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline import __version__
from ridgeline.datatypes import datatype, datatype_of_numpy
from ridgeline.errors import InvalidInput, NotFound, Unavailable
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.job import FutureJob
from serving.registry import ReadyVersion, Registry
from serving.request import InferRequest, InferResponse, Tensors
from serving.statistics import FailureReason

SERVER_NAME = "ridgeline"
SERVER_VERSION = __version__
EXTENSIONS = ("binary_tensor_data", "model_configuration")


@dataclass(frozen=True)
class ModelMetadata:
    """A model as clients see it: contract, versions that are ready, platform."""

    spec: ModelSpec
    versions: list[str]
    platform: str = "onnxruntime_onnx"


class DataPlane:
    """The operations of the Open Inference Protocol over a registry of models."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.stopping = False

    @property
    def ready(self) -> bool:
        """Whether every model has been looked at and the server is not stopping."""
        return self._registry.loaded and not self.stopping

    @property
    def generation(self) -> int:
        """Differs after every model version that has come or gone."""
        return self._registry.generation

    def model_ready(self, name: str, *, version: str = "") -> bool:
        """Whether that version can answer; a model that is not there is not ready."""
        try:
            return bool(self._registry.find(name, version=version)) and not self.stopping
        except (NotFound, Unavailable):
            return False

    def model_metadata(self, name: str, *, version: str = "") -> ModelMetadata:
        """What goes in and comes out. Raises NotFound or Unavailable."""
        spec = self._registry.find(name, version=version).loaded.spec
        return ModelMetadata(spec=spec, versions=self._registry.versions(name))

    def config(self, name: str, *, version: str = "") -> model_config_pb2.ModelConfig:
        """The complete configuration of a model. Raises NotFound or Unavailable."""
        return self._registry.find(name, version=version).loaded.config

    def find(self, name: str, *, version: str = "") -> ReadyVersion:
        """The version that a request asks for. Raises NotFound or Unavailable."""
        return self._registry.find(name, version=version)

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """Answer one request. Raises the errors of `Registry.find`, `check` and `Batcher.submit`.

        A caller that is cancelled takes its request out of the queue.
        """
        model = self._registry.find(request.model_name, version=request.model_version)
        try:
            check(request, spec=model.loaded.spec)
        except InvalidInput:
            model.statistics.record_failure(FailureReason.OTHER)
            raise
        job = FutureJob(
            future=asyncio.get_running_loop().create_future(),
            **job_arguments(request, spec=model.loaded.spec),
        )
        model.batcher.submit(job)
        try:
            outputs = await job.future
        except asyncio.CancelledError:
            model.batcher.cancel(job)
            raise
        return InferResponse(
            model_name=model.name, model_version=model.version, outputs=outputs, id=request.id
        )


def job_arguments(request: InferRequest, *, spec: ModelSpec) -> dict[str, Any]:
    """What a job takes over from a request that `check` has passed."""
    inputs = tuple(request.inputs[tensor.name] for tensor in spec.inputs)
    shape_key = None
    if spec.batches and any(FREE in tensor.shape for tensor in spec.inputs):
        shape_key = tuple(array.shape[1:] for array in inputs)
    return {
        "inputs": inputs,
        "rows": inputs[0].shape[0] if spec.batches else 1,
        "size_bytes": sum(array.nbytes for array in inputs),
        "outputs": request.outputs,
        "shape_key": shape_key,
        "deadline_ns": request.deadline_ns,
        "timeout_ns": request.timeout_ns,
        "priority": request.priority,
    }


def check(request: InferRequest, *, spec: ModelSpec) -> None:
    """Compare a request with a model's contract. Raises InvalidInput naming tensor and model."""
    expected = {tensor.name: tensor for tensor in spec.inputs}
    if request.inputs.keys() != expected.keys():
        _refuse_names(request, expected=expected, spec=spec)
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


def _refuse_names(
    request: InferRequest, *, expected: dict[str, TensorSpec], spec: ModelSpec
) -> None:
    for name in request.inputs:
        if name not in expected:
            raise InvalidInput(
                f"unexpected inference input {name!r} for model {spec.name!r}; "
                f"expected {', '.join(expected)}"
            )
    missing = [name for name in expected if name not in request.inputs]
    raise InvalidInput(
        f"expected {len(expected)} inputs but got {len(request.inputs)} inputs for model "
        f"{spec.name!r}; missing {', '.join(missing)}"
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
