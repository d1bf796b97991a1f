"""What the gateway needs of a front end: two ports, a start, and a stop that drains."""

import socket
from typing import Protocol

from ridgeline.errors import InvalidInput

_BACKLOG = 2048


class FrontEnd(Protocol):
    """Answers gRPC and HTTP over one data plane. Its ports are bound when it is made."""

    grpc_port: int
    http_port: int

    async def start(self) -> None:
        """Begin to answer."""

    async def stop(self) -> None:
        """Take no new requests; wait for the running ones, as long as a drain may take."""


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; from here on clients wait instead of being refused.

    Raises InvalidInput where the port is taken or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidInput(f"cannot listen on {host}:{port}: {error}") from error
    return listener
