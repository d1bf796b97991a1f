"""What a gRPC method is, to the front ends that carry it and the groups that define it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from ridgeline.errors import InvalidInput, Unavailable

INFERENCE_SERVICE = "inference.GRPCInferenceService"
INFER = f"/{INFERENCE_SERVICE}/ModelInfer"
_NS_PER_MS = 1_000_000

# From the request message and the call's deadline (monotonic, None without) to the response.
Handler = Callable[[Any, int | None], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a streaming handler may know of its call: deadline (monotonic), the client's metadata.

    Names of metadata are in lower case; of several values of one name, it has the last.
    """

    deadline_ns: int | None
    metadata: Mapping[str, str]


# From the request messages, as they come, to the response messages. When the call ends early, the
# generator is closed.
StreamHandler = Callable[[AsyncIterator[Any], CallContext], AsyncGenerator[Any, None]]


@dataclass(frozen=True, slots=True)
class Method:
    """A unary method: the class of its request message, and what answers it."""

    request: type[Message]
    answer: Handler


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A method of which a side, or both, may send any number of messages.

    On the wire these are the same; one that takes a single request reads that with `only`.
    """

    request: type[Message]
    answer: StreamHandler


AnyMethod = Method | StreamMethod


async def only(requests: AsyncIterator[Any], /) -> Any:
    """The single request of a call. Raises InvalidInput where the client sent none."""
    async for request in requests:
        return request
    raise InvalidInput("expected one request message, received none")


def of_inference_service(
    methods: Mapping[str, AnyMethod],
) -> dict[str, AnyMethod]:
    """Methods of inference.GRPCInferenceService by their paths."""
    return {f"/{INFERENCE_SERVICE}/{name}": method for name, method in methods.items()}


def retry_metadata(error: Exception) -> tuple[tuple[str, str], ...]:
    """When to try again, as gRPC proposal A6 tells it: clients with a retry policy obey."""
    wait_ns = error.retry_after_ns if isinstance(error, Unavailable) else None
    if wait_ns is None:
        return ()
    return (("grpc-retry-pushback-ms", str(max(1, -(-wait_ns // _NS_PER_MS)))),)
