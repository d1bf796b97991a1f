"""The gRPC methods on grpcio's own asyncio server."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from ridgeline.errors import InvalidInput
from serving.dataplane import DataPlane
from serving.protocol.grpc_inference import answered
from serving.protocol.grpc_method import (
    AnyMethod,
    CallContext,
    Method,
    StreamMethod,
    retry_metadata,
)
from serving.protocol.grpc_methods import methods
from serving.protocol.statuses import status_of

_NS_PER_S = 1_000_000_000


class GrpcServer:
    """A grpc.aio server over the data plane; `port` is the bound one; `credentials` are for TLS.

    Raises InvalidInput where the port is taken.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        *,
        host: str,
        port: int,
        max_request_bytes: int,
        credentials: Any = None,
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", -1),
                # A second server on the same port is a mistake to be told, not to be shared.
                ("grpc.so_reuseport", 0),
            ]
        )
        self._server.add_generic_rpc_handlers((Handlers(dataplane),))
        try:
            address = f"{_bracketed(host)}:{port}"
            self.port = (
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise InvalidInput(f"gRPC cannot listen on {host}:{port}: {error}") from error

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def stop(self, *, drain_seconds: float) -> None:
        """Take no new calls; wait for the running ones, `drain_seconds` at most."""
        await self._server.stop(drain_seconds)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio publishes no types
    """Finds the method of a call, in grpcio's own terms."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._handlers = {
            path: _handler(method, dataplane=dataplane)
            for path, method in methods(dataplane).items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """The handler of that path; None where there is no such method."""
        return self._handlers.get(handler_call_details.method)


def _handler(method: AnyMethod, *, dataplane: DataPlane) -> Any:
    """A method as grpcio knows it."""
    streams = isinstance(method, StreamMethod)
    kind = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    return kind(
        _streaming(method, dataplane=dataplane)
        if isinstance(method, StreamMethod)
        else _answering(method, dataplane=dataplane),
        request_deserializer=method.request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _answering(
    method: Method, *, dataplane: DataPlane
) -> Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]:
    """A handler that turns what the method raises into the status that the client receives."""

    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            if method.request is service_pb2.ModelInferRequest:  # metadata may be forwarded
                return await answered(
                    request,
                    dataplane=dataplane,
                    deadline_ns=_deadline_ns(context),
                    metadata=dict(context.invocation_metadata() or ()),
                )
            return await method.answer(request, _deadline_ns(context))
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            return await _abort(context, error, like_triton=dataplane.like_triton)

    return answer


def _streaming(
    method: StreamMethod, *, dataplane: DataPlane
) -> Callable[[AsyncIterator[Any], grpc.aio.ServicerContext], Awaitable[None]]:
    """The same for a method that streams: each message is written before the next one is made."""

    async def answer(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> None:
        await context.send_initial_metadata(())
        metadata = dict(context.invocation_metadata() or ())
        call = CallContext(deadline_ns=_deadline_ns(context), metadata=metadata)
        try:
            async with contextlib.aclosing(method.answer(requests, call)) as responses:
                async for response in responses:
                    await context.write(response)
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            await _abort(context, error, like_triton=dataplane.like_triton)

    return answer


def _deadline_ns(context: grpc.aio.ServicerContext) -> int | None:
    left_s = context.time_remaining()
    return None if left_s is None else time.monotonic_ns() + int(left_s * _NS_PER_S)


async def _abort(context: grpc.aio.ServicerContext, error: Exception, *, like_triton: bool) -> Any:
    code, _, text = status_of(error, like_triton=like_triton)
    return await context.abort(code, text, retry_metadata(error))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
