"""The gateway: front ends, models and metrics of one process, started and stopped in order."""

import asyncio
import logging
import mmap
from dataclasses import dataclass

from serving.dataplane import DataPlane
from serving.forwarding import HeaderForwarding
from serving.metrics import metrics_app
from serving.protocol.frontend import FrontEnd
from serving.protocol.http_server import HttpServer
from serving.registry import Registry
from serving.settings import ServeSettings
from serving.shared_memory import Regions

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
        self._dataplane = DataPlane(
            self.registry,
            regions=Regions(
                key_pattern=settings.shared_memory_pattern,
                max_request_bytes=settings.max_request_bytes,
                # Triton maps pages; here, a region may begin anywhere.
                offset_unit_bytes=mmap.PAGESIZE if settings.status_codes == "triton" else 1,
            ),
            forwarding=HeaderForwarding(
                grpc_pattern=settings.grpc_header_forward_pattern,
                http_pattern=settings.http_header_forward_pattern,
            ),
        )
        self._front_end = _front_end(self._dataplane, settings=settings)
        self._metrics = HttpServer(
            metrics_app(self.registry),
            host=settings.host,
            port=settings.metrics_port,
            drain_seconds=settings.drain_seconds,
        )
        self.addresses = Addresses(
            host=settings.host,
            grpc_port=self._front_end.grpc_port,
            http_port=self._front_end.http_port,
            metrics_port=self._metrics.port,
        )

    async def start(self) -> None:
        """Answer health checks at once, then load the models; ready when each was looked at.

        Raises NotFound where there is no repository.
        """
        await self._front_end.start()
        await self._metrics.start()
        await self._dataplane.control.start()

    async def stop(self) -> None:
        """Not ready, no new requests, answer the accepted ones up to a deadline, close engines."""
        self._dataplane.stopping = True
        await self._dataplane.control.close()
        await self._front_end.stop()
        await self.registry.close(drain_seconds=self._settings.drain_seconds)
        await asyncio.to_thread(self._dataplane.tracing.close)
        await self._metrics.stop()
        logger.info("stopped")


def _front_end(dataplane: DataPlane, *, settings: ServeSettings) -> FrontEnd:
    """The front end that the settings name; the other one's packages stay unloaded."""
    if settings.front_end == "grpcio":
        from serving.protocol.grpcio_frontend import GrpcioFrontEnd

        return GrpcioFrontEnd(dataplane, settings=settings)
    from serving.protocol.direct_frontend import DirectFrontEnd

    return DirectFrontEnd(dataplane, settings=settings)
