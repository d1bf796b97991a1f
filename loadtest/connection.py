"""What the driver needs of a protocol, whichever it is."""

from collections.abc import Sequence
from typing import Protocol

from tritonclient.grpc import model_config_pb2, service_pb2

from loadtest.samples import Batch
from ridgeline.errors import RidgelineError, WrongUsage


class RequestFailed(RidgelineError):
    """One inference request got no answer, or an error for an answer.

    `status` names the kind of failure, the same for all of a kind: "UNAVAILABLE", "HTTP 503".
    """

    def __init__(self, *, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class Sender(Protocol):
    """Requests made beforehand, sent in turn over one connection."""

    async def send(self) -> None:
        """Send the next request and await its answer, unread. Raises RequestFailed."""

    async def send_and_read(self) -> dict[str, tuple[int, ...]]:
        """Send the next request and return the shapes of the answer's outputs.

        Raises RequestFailed, also for an answer that is not one of the protocol.
        """


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

    def prepare(self, batches: Sequence[Batch], *, timeout_s: float) -> Sender:
        """Make one request of each batch; each may take `timeout_s` to be answered."""

    async def close(self) -> None:
        """Close the sockets."""


def check_address(url: str) -> str:
    """The host in HOST:PORT, without the brackets of IPv6. Raises WrongUsage."""
    host, _, port = url.rpartition(":")
    if "/" in url or not host or not (port.isdecimal() and 0 < int(port) < 2**16):
        raise WrongUsage(f"--url must be HOST:PORT, such as 127.0.0.1:8001, received {url!r}")
    return host.removeprefix("[").removesuffix("]")
