"""The gRPC front end: inference.GRPCInferenceService and grpc.health.v1.Health."""

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ridgeline.errors import InvalidInput
from ridgeline.model import ModelSpec, TensorSpec
from serving.dataplane import EXTENSIONS, SERVER_NAME, SERVER_VERSION, DataPlane
from serving.protocol.grpc_codec import decode_request, encode_response
from serving.protocol.statuses import status_of

_NS_PER_S = 1_000_000_000
_Rpc = Callable[[Any, Any, grpc.aio.ServicerContext], Awaitable[Any]]


def _answering(rpc: _Rpc) -> _Rpc:
    """Turn what a handler raises into the status that the client receives."""

    @functools.wraps(rpc)
    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await rpc(self, request, context)
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            code, _, text = status_of(error)
            return await context.abort(code, text)

    return answer


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The RPCs of the protocol, each a few lines over the data plane."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    @_answering
    async def ServerLive(self, _request: Any, _context: Any) -> service_pb2.ServerLiveResponse:
        """Whether the process answers at all."""
        return service_pb2.ServerLiveResponse(live=True)

    @_answering
    async def ServerReady(self, _request: Any, _context: Any) -> service_pb2.ServerReadyResponse:
        """Whether the server takes inference requests."""
        return service_pb2.ServerReadyResponse(ready=self._dataplane.ready)

    @_answering
    async def ModelReady(self, request: Any, _context: Any) -> service_pb2.ModelReadyResponse:
        """Whether that model version can answer."""
        ready = self._dataplane.model_ready(request.name, version=request.version)
        return service_pb2.ModelReadyResponse(ready=ready)

    @_answering
    async def ServerMetadata(
        self, _request: Any, _context: Any
    ) -> service_pb2.ServerMetadataResponse:
        """Name, version, and the extensions that are really there."""
        return service_pb2.ServerMetadataResponse(
            name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS
        )

    @_answering
    async def ModelMetadata(self, request: Any, _context: Any) -> service_pb2.ModelMetadataResponse:
        """Inputs and outputs of a model as clients see them, with the batch axis."""
        metadata = self._dataplane.model_metadata(request.name, version=request.version)
        return service_pb2.ModelMetadataResponse(
            name=metadata.spec.name,
            versions=metadata.versions,
            platform=metadata.platform,
            inputs=[_tensor(tensor, spec=metadata.spec) for tensor in metadata.spec.inputs],
            outputs=[_tensor(tensor, spec=metadata.spec) for tensor in metadata.spec.outputs],
        )

    @_answering
    async def ModelConfig(self, request: Any, _context: Any) -> service_pb2.ModelConfigResponse:
        """The complete configuration; its parameters carry the model's cost."""
        config = self._dataplane.config(request.name, version=request.version)
        return service_pb2.ModelConfigResponse(config=config)

    @_answering
    async def ModelInfer(
        self, request: service_pb2.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelInferResponse:
        """One inference; the call's deadline travels with it into the queue."""
        left_s = context.time_remaining()
        deadline_ns = None if left_s is None else time.monotonic_ns() + int(left_s * _NS_PER_S)
        response = await self._dataplane.infer(decode_request(request, deadline_ns=deadline_ns))
        return encode_response(response)


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1 for the whole server ("") and for the inference service."""

    _SERVICES = ("", "inference.GRPCInferenceService")

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    async def Check(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """SERVING while inference requests are taken. NOT_FOUND for an unknown service."""
        if request.service not in self._SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        status = health_pb2.HealthCheckResponse.ServingStatus
        return health_pb2.HealthCheckResponse(
            status=status.SERVING if self._dataplane.ready else status.NOT_SERVING
        )


class GrpcFrontend:
    """A grpc.aio server over the data plane; `port` is the bound one after `start`."""

    def __init__(
        self, dataplane: DataPlane, *, host: str, port: int, max_request_bytes: int
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", -1),
                # A second server on the same port is a mistake to be told, not to be shared.
                ("grpc.so_reuseport", 0),
            ]
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceService(dataplane), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(HealthService(dataplane), self._server)
        try:
            self.port = self._server.add_insecure_port(f"{_bracketed(host)}:{port}")
        except RuntimeError as error:
            raise InvalidInput(f"gRPC cannot listen on {host}:{port}: {error}") from error

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def stop(self, *, drain_seconds: float) -> None:
        """Take no new calls; wait for the running ones, `drain_seconds` at most."""
        await self._server.stop(drain_seconds)


def _tensor(
    tensor: TensorSpec, *, spec: ModelSpec
) -> service_pb2.ModelMetadataResponse.TensorMetadata:
    return service_pb2.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=spec.full_shape(tensor)
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
