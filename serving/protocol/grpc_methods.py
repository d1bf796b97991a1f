"""The gRPC methods over the data plane, group by group: messages in, messages out.

A front end finds a method by its path, reads the request message, and turns what the handler raises
into a status.
"""

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from ridgeline.model import ModelSpec, TensorSpec
from serving.dataplane import EXTENSIONS, SERVER_VERSION, DataPlane
from serving.protocol.grpc_health import health_methods
from serving.protocol.grpc_inference import answered
from serving.protocol.grpc_logging import logging_methods
from serving.protocol.grpc_method import AnyMethod, Method, StreamMethod, of_inference_service
from serving.protocol.grpc_reflection import reflection_methods
from serving.protocol.grpc_repository import repository_methods
from serving.protocol.grpc_shared_memory import shared_memory_methods
from serving.protocol.grpc_statistics import statistics_methods
from serving.protocol.grpc_stream import StreamInference
from serving.protocol.grpc_trace import trace_methods


def methods(dataplane: DataPlane) -> Mapping[str, AnyMethod]:
    """Every method by its path, "/package.Service/Method", group by group."""
    found = {
        **_inference_methods(dataplane),
        **of_inference_service(shared_memory_methods(dataplane)),
        **of_inference_service(statistics_methods(dataplane)),
        **of_inference_service(logging_methods(dataplane)),
        **of_inference_service(trace_methods(dataplane)),
        **of_inference_service(repository_methods(dataplane)),
        **health_methods(dataplane),
    }
    return {**found, **reflection_methods(found)}


def _inference_methods(dataplane: DataPlane) -> dict[str, AnyMethod]:
    service = _InferenceService(dataplane)
    return of_inference_service(
        {
            "ServerLive": Method(service_pb2.ServerLiveRequest, service.server_live),
            "ServerReady": Method(service_pb2.ServerReadyRequest, service.server_ready),
            "ModelReady": Method(service_pb2.ModelReadyRequest, service.model_ready),
            "ServerMetadata": Method(service_pb2.ServerMetadataRequest, service.server_metadata),
            "ModelMetadata": Method(service_pb2.ModelMetadataRequest, service.model_metadata),
            "ModelConfig": Method(service_pb2.ModelConfigRequest, service.model_config),
            "ModelInfer": Method(service_pb2.ModelInferRequest, service.model_infer),
            "ModelStreamInfer": StreamMethod(
                service_pb2.ModelInferRequest, StreamInference(dataplane).answer
            ),
        }
    )


class _InferenceService:
    """inference.GRPCInferenceService, each method a few lines over the data plane."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    async def server_live(self, _request: Any, _deadline_ns: int | None) -> Any:
        """Whether the process answers at all."""
        return service_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, _request: Any, _deadline_ns: int | None) -> Any:
        """Whether the server takes inference requests."""
        return service_pb2.ServerReadyResponse(ready=self._dataplane.ready)

    async def model_ready(self, request: Any, _deadline_ns: int | None) -> Any:
        """Whether that model version can answer."""
        ready = self._dataplane.model_ready(request.name, version=request.version)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def server_metadata(self, _request: Any, _deadline_ns: int | None) -> Any:
        """Name, version, and the extensions that are really there."""
        return service_pb2.ServerMetadataResponse(
            name=self._dataplane.server_name, version=SERVER_VERSION, extensions=EXTENSIONS
        )

    async def model_metadata(self, request: Any, _deadline_ns: int | None) -> Any:
        """Inputs and outputs of a model as clients see them, with the batch axis."""
        metadata = self._dataplane.model_metadata(request.name, version=request.version)
        return service_pb2.ModelMetadataResponse(
            name=metadata.spec.name,
            versions=metadata.versions,
            platform=metadata.platform,
            inputs=[_tensor(tensor, spec=metadata.spec) for tensor in metadata.spec.inputs],
            outputs=[_tensor(tensor, spec=metadata.spec) for tensor in metadata.spec.outputs],
        )

    async def model_config(self, request: Any, _deadline_ns: int | None) -> Any:
        """The complete configuration; its parameters carry the model's cost."""
        config = self._dataplane.config(request.name, version=request.version)
        return service_pb2.ModelConfigResponse(config=config)

    async def model_infer(self, request: Any, deadline_ns: int | None) -> Any:
        """One inference; the call's deadline travels with it into the queue."""
        return await answered(request, dataplane=self._dataplane, deadline_ns=deadline_ns)


def _tensor(tensor: TensorSpec, *, spec: ModelSpec) -> Any:
    return service_pb2.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=spec.full_shape(tensor)
    )
