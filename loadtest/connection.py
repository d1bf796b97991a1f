"""What a load test asks of a server beside the load itself, whichever the protocol."""

from typing import Protocol

from tritonclient.grpc import model_config_pb2, service_pb2

from loadtest.messages import Message
from ridgeline.errors import RidgelineError, WrongUsage


class RequestFailed(RidgelineError):
    """One inference request got no answer, or an error for an answer.

    `status` names the kind of failure, the same for all of a kind: "UNAVAILABLE", "HTTP 503".
    """

    def __init__(self, *, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class Connection(Protocol):
    """A server, reached over one protocol, and one of its models.

    Reading raises Unavailable where nothing answers there, NotFound where the model is unknown.
    """

    async def read_server(self) -> service_pb2.ServerMetadataResponse:
        """The server's name, version and extensions."""

    async def read_metadata(self) -> service_pb2.ModelMetadataResponse:
        """The model's inputs and outputs."""

    async def read_config(self) -> model_config_pb2.ModelConfig | None:
        """The model's configuration, or None where the server does not implement the request."""

    async def read_statistics(self) -> service_pb2.ModelStatisticsResponse | None:
        """The model's statistics so far, or None where the server does not implement them."""

    async def ask(self, message: Message, *, timeout_s: float) -> bytes:
        """Send one request and return the answer as it came. Raises RequestFailed."""

    async def close(self) -> None:
        """Close the sockets."""


def check_address(url: str) -> str:
    """The host in HOST:PORT, without the brackets of IPv6. Raises WrongUsage."""
    host, _, port = url.rpartition(":")
    if "/" in url or not host or not (port.isdecimal() and 0 < int(port) < 2**16):
        raise WrongUsage(f"--url must be HOST:PORT, such as 127.0.0.1:8001, received {url!r}")
    return host.removeprefix("[").removesuffix("]")


def split_address(url: str) -> tuple[str, int]:
    """Host and port in HOST:PORT. Raises WrongUsage."""
    return check_address(url), int(url.rpartition(":")[2])
