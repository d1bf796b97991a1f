"""The protocol over gRPC, with requests serialised beforehand and answers left as bytes."""

import itertools
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import serialize_byte_tensor

from loadtest.connection import RequestFailed
from loadtest.samples import Array, Batch
from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unavailable

_SERVICE = "/inference.GRPCInferenceService/"
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

    def prepare(self, batches: Sequence[Batch], *, timeout_s: float) -> "GrpcSender":
        """Serialise one request of each batch."""
        requests = [self._request(batch) for batch in batches]
        return GrpcSender(self._channel, requests=requests, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _read(self, method: str, request: Message, kind: type[Any]) -> Any:
        try:
            return kind.FromString(await self._call(method, request))
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        except DecodeError as error:
            raise Unavailable(f"{self._url} answered {method} with another message") from error

    async def _call(self, method: str, request: Message) -> bytes:
        call = self._channel.unary_unary(_SERVICE + method)
        reply: bytes = await call(request.SerializeToString(), timeout=_READ_TIMEOUT_S)
        return reply

    def _translated(self, error: grpc.aio.AioRpcError) -> RidgelineError:
        kind = _ERRORS.get(error.code(), Unavailable)
        return kind(f"{self._url} over gRPC: {error.code().name}: {error.details()}")

    def _request(self, batch: Batch) -> bytes:
        request = service_pb2.ModelInferRequest(model_name=self._model, model_version=self._version)
        for name, array in batch.items():
            request.inputs.add(
                name=name, datatype=datatype_of_numpy(array.dtype).name, shape=array.shape
            )
            request.raw_input_contents.append(_raw(array))
        serialised: bytes = request.SerializeToString()
        return serialised


class GrpcSender:
    """Serialised ModelInfer requests, sent in turn."""

    def __init__(
        self, channel: grpc.aio.Channel, *, requests: Sequence[bytes], timeout_s: float
    ) -> None:
        self._call = channel.unary_unary(_SERVICE + "ModelInfer")  # bytes in, bytes out
        self._next = itertools.cycle(requests).__next__
        self._timeout_s = timeout_s

    async def send(self) -> None:
        """Send the next request and await its answer, unread. Raises RequestFailed."""
        await self._send()

    async def send_and_read(self) -> dict[str, tuple[int, ...]]:
        """Send the next request and return the shapes of the answer's outputs."""
        reply = await self._send()
        try:
            response = service_pb2.ModelInferResponse.FromString(reply)
        except DecodeError as error:
            raise RequestFailed(status="MALFORMED ANSWER", detail=str(error)) from error
        return {output.name: tuple(output.shape) for output in response.outputs}

    async def _send(self) -> bytes:
        try:
            reply: bytes = await self._call(self._next(), timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(
                status=error.code().name, detail=error.details() or "no details"
            ) from error
        return reply


def _raw(array: Array) -> bytes:
    """The tensor as raw_input_contents holds it: row-major, little-endian."""
    if array.dtype.kind in "OSU":
        serialised: Array = serialize_byte_tensor(array.astype(np.object_))
        return bytes(serialised.item()) if serialised.size else b""
    return array.tobytes()
