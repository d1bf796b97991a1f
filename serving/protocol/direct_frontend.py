"""The front end that reads usual requests from its sockets by itself, over gRPC and HTTP."""

import asyncio
import functools
from collections.abc import Callable
from typing import cast

from serving.dataplane import DataPlane
from serving.protocol.frontend import listening_socket
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.http_app import http_app
from serving.protocol.http_direct import DirectHttpProtocol
from serving.protocol.http_known import KnownHttpRequests
from serving.protocol.http_server import HttpServer
from serving.protocol.tls import ssl_context
from serving.protocol.uploads import BODIES, Uploads
from serving.settings import ServeSettings

_POLL_S = 0.005


class DirectFrontEnd:
    """Two servers, one a protocol. Raises InvalidInput where a port is taken."""

    def __init__(self, dataplane: DataPlane, *, settings: ServeSettings) -> None:
        self._drain_seconds = settings.drain_seconds
        self._tls = ssl_context(settings, protocol="h2")
        self._socket = listening_socket(settings.host, settings.grpc_port)
        most_bytes = settings.max_request_bytes
        uploads = Uploads(most_bytes=BODIES * most_bytes)
        self._service = GrpcService(dataplane, max_request_bytes=most_bytes, uploads=uploads)
        known = KnownHttpRequests(dataplane)
        self._http = HttpServer(
            http_app(dataplane, max_request_bytes=most_bytes, known=known, uploads=uploads),
            protocol=functools.partial(DirectHttpProtocol, known=known, uploads=uploads),
            tls=ssl_context(settings, protocol="http/1.1"),
            host=settings.host,
            port=settings.http_port,
            drain_seconds=settings.drain_seconds,
        )
        self._server: asyncio.Server | None = None
        self.grpc_port: int = self._socket.getsockname()[1]
        self.http_port = self._http.port

    async def start(self) -> None:
        """Begin to answer."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            cast("Callable[[], asyncio.Protocol]", self._service.connection),
            sock=self._socket,
            ssl=self._tls,
        )
        await self._http.start()

    async def stop(self) -> None:
        """Take no new requests; wait for the running ones, as long as a drain may take."""
        await asyncio.gather(self._http.stop(), self._stop_grpc())

    async def _stop_grpc(self) -> None:
        if self._server:
            self._server.close()
        for connection in list(self._service.connections):
            connection.leave()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_seconds
        while self._service.connections and loop.time() < until:
            await asyncio.sleep(_POLL_S)
        for connection in list(self._service.connections):
            connection.abort()
        self._socket.close()
