"""Runs an ASGI application on a port: uvicorn inside the gateway's own event loop."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from serving.protocol.frontend import listening_socket

_KEEP_ALIVE_S = 75  # longer than clients pause between requests: reconnecting costs them time


class HttpServer:
    """One application on one port; `port` is the bound one. Raises InvalidInput if it is taken.

    `protocol` makes the protocol of a connection instead of uvicorn's own; with `tls` it is HTTPS.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        drain_seconds: float,
        protocol: Callable[..., asyncio.Protocol] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._socket = listening_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            loop="none",
            http=cast(Any, protocol or "httptools"),  # a factory will do; uvicorn says a class
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to answer."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Take no new requests; wait for the running ones, `drain_seconds` at most."""
        self._server.should_exit = True
        if self._serving:
            await self._serving
        self._socket.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the gateway decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
