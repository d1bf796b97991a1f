"""The protocol over gRPC: what a server says of itself and of a model, and single requests."""

from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage
from tritonclient.grpc import model_config_pb2, service_pb2

from loadtest.connection import RequestFailed
from loadtest.messages import SERVICE, Message
from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unavailable

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # the path to a proxy is not what is to be measured
)
_READ_TIMEOUT_S = 10.0
_ERRORS: dict[Any, type[RidgelineError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
}


class GrpcConnection:
    """One HTTP/2 channel, which carries any number of requests at once."""

    def __init__(self, *, url: str, model: str, version: str) -> None:
        self._url, self._model, self._version = url, model, version
        self._channel = grpc.aio.insecure_channel(url, options=_OPTIONS)

    async def read_server(self) -> service_pb2.ServerMetadataResponse:
        """The server's name, version and extensions."""
        request = service_pb2.ServerMetadataRequest()
        return await self._read("ServerMetadata", request, service_pb2.ServerMetadataResponse)

    async def read_metadata(self) -> service_pb2.ModelMetadataResponse:
        """The model's inputs and outputs."""
        request = service_pb2.ModelMetadataRequest(name=self._model, version=self._version)
        return await self._read("ModelMetadata", request, service_pb2.ModelMetadataResponse)

    async def read_config(self) -> model_config_pb2.ModelConfig | None:
        """The model's configuration, or None where the server does not implement the request."""
        request = service_pb2.ModelConfigRequest(name=self._model, version=self._version)
        try:
            reply = await self._call("ModelConfig", request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._translated(error) from error
        return service_pb2.ModelConfigResponse.FromString(reply).config

    async def read_statistics(self) -> service_pb2.ModelStatisticsResponse | None:
        """The model's statistics so far, or None where the server does not implement them."""
        request = service_pb2.ModelStatisticsRequest(name=self._model, version=self._version)
        try:
            reply = await self._call("ModelStatistics", request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._translated(error) from error
        return service_pb2.ModelStatisticsResponse.FromString(reply)

    async def ask(self, message: Message, *, timeout_s: float) -> bytes:
        """Send one request and return the answer as it came. Raises RequestFailed."""
        call = self._channel.unary_unary(message.path)  # bytes in, bytes out
        try:
            reply: bytes = await call(message.body, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(
                status=error.code().name, detail=error.details() or "no details"
            ) from error
        return reply

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _read(self, method: str, request: ProtobufMessage, kind: type[Any]) -> Any:
        try:
            return kind.FromString(await self._call(method, request))
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        except DecodeError as error:
            raise Unavailable(f"{self._url} answered {method} with another message") from error

    async def _call(self, method: str, request: ProtobufMessage) -> bytes:
        call = self._channel.unary_unary(SERVICE + method)
        reply: bytes = await call(request.SerializeToString(), timeout=_READ_TIMEOUT_S)
        return reply

    def _translated(self, error: grpc.aio.AioRpcError) -> RidgelineError:
        kind = _ERRORS.get(error.code(), Unavailable)
        return kind(f"{self._url} over gRPC: {error.code().name}: {error.details()}")
