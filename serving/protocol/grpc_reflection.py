"""gRPC reflection (v1alpha): clients such as grpcurl read the services from the server."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.protocol.grpc_method import AnyMethod, CallContext, StreamMethod

_PATH = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"


def reflection_methods(paths: Iterable[str]) -> dict[str, AnyMethod]:
    """The method that tells the services of those methods, and its own."""
    services = sorted({path.split("/")[1] for path in paths} | {reflection.SERVICE_NAME})
    servicer = reflection.aio.ReflectionServicer(services)

    async def info(
        requests: AsyncIterator[Any], _context: CallContext
    ) -> AsyncGenerator[Any, None]:
        async for response in servicer.ServerReflectionInfo(requests, None):
            yield response

    return {_PATH: StreamMethod(reflection_pb2.ServerReflectionRequest, info)}
