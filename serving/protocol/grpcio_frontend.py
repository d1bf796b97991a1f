"""The reference front end: grpcio for gRPC, uvicorn for HTTP."""

import asyncio

from serving.dataplane import DataPlane
from serving.protocol.grpc_server import GrpcServer
from serving.protocol.http_app import http_app
from serving.protocol.http_server import HttpServer
from serving.protocol.tls import grpcio_credentials, ssl_context
from serving.settings import ServeSettings


class GrpcioFrontEnd:
    """Two servers, one a protocol. Raises InvalidInput where a port is taken."""

    def __init__(self, dataplane: DataPlane, *, settings: ServeSettings) -> None:
        self._drain_seconds = settings.drain_seconds
        self._grpc = GrpcServer(
            dataplane,
            host=settings.host,
            port=settings.grpc_port,
            max_request_bytes=settings.max_request_bytes,
            credentials=grpcio_credentials(settings),
        )
        self._http = HttpServer(
            http_app(dataplane, max_request_bytes=settings.max_request_bytes),
            host=settings.host,
            port=settings.http_port,
            drain_seconds=settings.drain_seconds,
            tls=ssl_context(settings, protocol="http/1.1"),
        )
        self.grpc_port, self.http_port = self._grpc.port, self._http.port

    async def start(self) -> None:
        """Begin to answer."""
        await self._grpc.start()
        await self._http.start()

    async def stop(self) -> None:
        """Take no new requests; wait for the running ones, as long as a drain may take."""
        await asyncio.gather(self._grpc.stop(drain_seconds=self._drain_seconds), self._http.stop())
