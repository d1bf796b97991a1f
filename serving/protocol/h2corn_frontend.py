"""The front end whose gRPC runs on h2corn, a native HTTP/2 server; HTTP stays with uvicorn.

h2corn answers HTTP/1.1 too, but does not tell while an answer is awaited that the client has closed
its connection: the work of a caller that has gone could not be dropped.
"""

import asyncio

import h2corn

from serving.dataplane import DataPlane
from serving.protocol.frontend import listening_socket
from serving.protocol.grpc_asgi import GrpcApp
from serving.protocol.http_app import http_app
from serving.protocol.http_server import HttpServer
from serving.settings import ServeSettings

_MAX_CONCURRENT_STREAMS = 4096  # calls in flight per connection; clients queue beyond it


class H2cornFrontEnd:
    """Two servers, one a protocol. Raises InvalidInput where a port is taken."""

    def __init__(self, dataplane: DataPlane, *, settings: ServeSettings) -> None:
        self._http = HttpServer(
            http_app(dataplane, max_request_bytes=settings.max_request_bytes),
            host=settings.host,
            port=settings.http_port,
            drain_seconds=settings.drain_seconds,
        )
        self._socket = listening_socket(settings.host, settings.grpc_port)
        config = h2corn.Config(
            bind=(f"fd://{self._socket.fileno()}",),
            grpc=True,
            http1=False,
            access_log=False,
            lifespan="off",
            max_concurrent_streams=_MAX_CONCURRENT_STREAMS,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        app = GrpcApp(dataplane, max_request_bytes=settings.max_request_bytes)
        self._grpc = h2corn.Server(app, config)
        self._serving: asyncio.Task[None] | None = None
        self.grpc_port: int = self._socket.getsockname()[1]
        self.http_port = self._http.port

    async def start(self) -> None:
        """Begin to answer."""
        self._serving = asyncio.create_task(self._grpc.serve())
        await self._grpc.wait_started()
        await self._http.start()

    async def stop(self) -> None:
        """Take no new requests; wait for the running ones, as long as a drain may take."""
        await asyncio.gather(self._http.stop(), self._stop_grpc())

    async def _stop_grpc(self) -> None:
        if self._serving:
            self._grpc.shutdown()
            await self._serving
        self._socket.close()
