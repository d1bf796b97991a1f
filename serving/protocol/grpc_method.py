"""What a gRPC method is, to the front ends that carry it and the groups that define it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from ridgeline.errors import Unavailable

INFERENCE_SERVICE = "inference.GRPCInferenceService"
INFER = f"/{INFERENCE_SERVICE}/ModelInfer"
_NS_PER_MS = 1_000_000

# From the request message and the call's deadline (monotonic, None without) to the response.
Handler = Callable[[Any, int | None], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """A unary method: the class of its request message, and what answers it."""

    request: type[Message]
    answer: Handler


def of_inference_service(methods: Mapping[str, Method]) -> dict[str, Method]:
    """Methods of inference.GRPCInferenceService by their paths."""
    return {f"/{INFERENCE_SERVICE}/{name}": method for name, method in methods.items()}


def retry_metadata(error: Exception) -> tuple[tuple[str, str], ...]:
    """When to try again, as gRPC proposal A6 tells it: clients with a retry policy obey."""
    wait_ns = error.retry_after_ns if isinstance(error, Unavailable) else None
    if wait_ns is None:
        return ()
    return (("grpc-retry-pushback-ms", str(max(1, -(-wait_ns // _NS_PER_MS)))),)
