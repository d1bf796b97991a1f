"""The gateway: front ends, models and metrics of one process, started and stopped in order."""

import asyncio
import logging
from dataclasses import dataclass

from serving.dataplane import DataPlane
from serving.http_server import HttpServer
from serving.metrics import metrics_app
from serving.protocol.grpc_frontend import GrpcFrontend
from serving.protocol.http_app import http_app
from serving.registry import Registry
from serving.settings import ServeSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where the gateway listens."""

    host: str
    grpc_port: int
    http_port: int
    metrics_port: int


class Gateway:
    """Everything that one server process runs; built, started and stopped in one event loop."""

    def __init__(self, settings: ServeSettings) -> None:
        """Bind the ports. Raises InvalidInput where one is taken."""
        self._settings = settings
        self.registry = Registry(settings)
        self._dataplane = DataPlane(self.registry)
        self._grpc = GrpcFrontend(
            self._dataplane,
            host=settings.host,
            port=settings.grpc_port,
            max_request_bytes=settings.max_request_bytes,
        )
        self._http = HttpServer(
            http_app(self._dataplane, max_request_bytes=settings.max_request_bytes),
            host=settings.host,
            port=settings.http_port,
            drain_seconds=settings.drain_seconds,
        )
        self._metrics = HttpServer(
            metrics_app(self.registry),
            host=settings.host,
            port=settings.metrics_port,
            drain_seconds=settings.drain_seconds,
        )
        self.addresses = Addresses(
            host=settings.host,
            grpc_port=self._grpc.port,
            http_port=self._http.port,
            metrics_port=self._metrics.port,
        )

    async def start(self) -> None:
        """Answer health checks at once, then load the models; ready when each was looked at.

        Raises NotFound where there is no repository.
        """
        await self._grpc.start()
        await self._http.start()
        await self._metrics.start()
        await self.registry.load()

    async def stop(self) -> None:
        """Not ready, no new requests, answer the accepted ones up to a deadline, close engines."""
        self._dataplane.stopping = True
        drain_seconds = self._settings.drain_seconds
        await asyncio.gather(self._grpc.stop(drain_seconds=drain_seconds), self._http.stop())
        await self.registry.close(drain_seconds=drain_seconds)
        await self._metrics.stop()
        logger.info("stopped")
