"""The servers that are overloaded, by name, and the requests that they understand."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from loadtest.bench import peers
from ridgeline.children import gateway
from ridgeline.errors import InvalidInput, StepFailed
from ridgeline.model import spec_of
from ridgeline.repository import scan

_SERVICE = "/inference.GRPCInferenceService/"
ECHO_BYTES = 4096
_UNKNOWN_FIELD = 1000
_LENGTH_DELIMITED = 2
_QUEUE_TIMEOUT_SHARE = 0.8  # of the deadline: the model still has to run after the wait
_QUEUE_SHARE = 0.5  # of what is served within the deadline
_LEAST_QUEUE = 8
_US_PER_MS = 1000
SERVERS = ("ridgeline", "triton", "triton-tuned", "mosec", "mosec-tuned")


@dataclass(frozen=True)
class Target:
    """A running server. `infer_path` and `echo_path` name RPCs (grpc) or resources (http)."""

    name: str
    protocol: str
    port: int
    infer_path: str
    echo_path: str
    process_ids: Callable[[], tuple[int, ...]]
    takes_timeout: bool = False

    def message(self, sample: "Sample", *, deadline_ms: float = 0) -> bytes:
        """One inference; where the server reads deadlines from its messages, with that."""
        if self.protocol == "http":
            return sample.array.tobytes()
        timeout_us = int(_QUEUE_TIMEOUT_SHARE * deadline_ms * _US_PER_MS)
        return sample.request(timeout_us=timeout_us if self.takes_timeout else 0)

    def echo(self, size_bytes: int) -> bytes:
        """A call that the front end reads and answers, and nothing else: bytes that it ignores.

        Over HTTP, an empty one, since such servers have no resource that would read a body.
        """
        return echo_message(size_bytes) if self.protocol == "grpc" else b""


@dataclass(frozen=True)
class Sample:
    """One random sample of a model's only input."""

    model: str
    input: str
    datatype: str
    array: np.ndarray

    @classmethod
    def of(cls, repository: Path, *, model: str) -> "Sample":
        """Raises StepFailed where the repository does not hold that model."""
        for found in scan(repository):
            config = found.read_config() if found.name == model else None
            if config is not None:
                tensor = spec_of(config).inputs[0]
                random = np.random.default_rng(0)
                array = random.random(tensor.shape, dtype=np.float32)
                return cls(model, tensor.name, tensor.datatype, array)
        raise StepFailed(f"{repository} holds no model {model!r} with a configuration")

    def request(self, *, timeout_us: int = 0) -> bytes:
        """The ModelInfer request, a batch of one."""
        request = service_pb2.ModelInferRequest(model_name=self.model)
        shape = (1, *self.array.shape)
        request.inputs.add(name=self.input, datatype=self.datatype, shape=shape)
        request.raw_input_contents.append(self.array.tobytes())
        if timeout_us:
            request.parameters["timeout"].int64_param = timeout_us
        serialised: bytes = request.SerializeToString()
        return serialised


def echo_message(size_bytes: int) -> bytes:
    """A ServerLiveRequest with a field that nobody knows: protobuf reads it and goes on."""
    return (
        _varint(_UNKNOWN_FIELD << 3 | _LENGTH_DELIMITED) + _varint(size_bytes) + bytes(size_bytes)
    )


def _varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


@contextlib.contextmanager
def server(
    name: str, *, repository: Path, model: str, deadline_ms: float, capacity_per_s: float | None
) -> Iterator[Target]:
    """Start a server by name. Raises StepFailed where it does not start.

    The tuned ones bound their queue by what they serve in half the deadline, which needs their
    capacity.
    """
    kind, _, variant = name.partition("-")
    if name not in SERVERS:
        raise InvalidInput(f"there is no server {name!r}; there are {', '.join(SERVERS)}")
    if kind == "ridgeline":
        with gateway(repository) as ready:
            yield _grpc(name, port=ready["grpc_port"], process_ids=lambda: (ready["pid"],))
        return
    settings = None
    if variant:
        settings = _tuned(kind, deadline_ms=deadline_ms, capacity_per_s=capacity_per_s or 0)
    start: Any = peers.mosec if kind == "mosec" else peers.triton
    with start(repository, model=model, settings=settings) as peer:
        if peer.protocol == "grpc":
            yield _grpc(
                name, port=peer.port, process_ids=peer.process_ids, takes_timeout=bool(variant)
            )
        else:
            yield Target(name, "http", peer.port, peer.path, "/", peer.process_ids)


def _grpc(name: str, *, port: int, **more: Any) -> Target:
    return Target(name, "grpc", port, _SERVICE + "ModelInfer", _SERVICE + "ServerLive", **more)


def _tuned(kind: str, *, deadline_ms: float, capacity_per_s: float) -> Any:
    """What a user would set who knows the deadline and the capacity."""
    queue = max(_LEAST_QUEUE, int(_QUEUE_SHARE * capacity_per_s * deadline_ms / 1000))
    if kind == "mosec":
        return peers.MosecSettings(capacity=queue, timeout_ms=int(deadline_ms))
    return peers.TritonSettings(
        instances=len(os.sched_getaffinity(0)),
        max_queued_requests=queue,
        queue_timeout_us=int(_QUEUE_TIMEOUT_SHARE * deadline_ms * _US_PER_MS),
        allow_timeout_override=True,
    )
