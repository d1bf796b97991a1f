"""A clock that stands still, an engine that waits to be let go, an ASGI client without sockets."""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.types import ASGIApp, Message

from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.batcher import Batcher
from serving.settings import ServeSettings
from serving.statistics import ModelStatistics

_PATIENCE_S = 60  # a test that waits so long has failed; it never does otherwise


@pytest.fixture
def anyio_backend() -> str:
    """Async tests (marked anyio) run on asyncio."""
    return "asyncio"


class Clock:
    """Monotonic nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class FakeEngine:
    """y = 2 x and z = -x, over rows of x; rows of a negative first element make it fail.

    While `held`, every run waits for one `let_go`. `batches` are the inputs it was run with.
    """

    held: bool = False
    batches: list[np.ndarray] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    stopped: bool = False
    rows_lost: int = 0
    _entered: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)
    _gate: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)

    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (FREE, FREE)),)
    outputs: tuple[TensorSpec, ...] = (
        TensorSpec("y", "FP32", (FREE, FREE)),
        TensorSpec("z", "FP32", (FREE, FREE)),
    )

    def run(
        self, inputs: Mapping[str, np.ndarray], /, *, outputs: Sequence[str]
    ) -> list[np.ndarray]:
        x = inputs["x"]
        self.batches.append(x)
        self.asked.append(tuple(outputs))
        self.threads.add(threading.current_thread().name)
        self._entered.put(None)
        if self.held:
            self._gate.get(timeout=_PATIENCE_S)
        if self.stopped:
            raise RuntimeError("cut short")
        if x.size and float(x.min()) < 0:
            raise RuntimeError("a kernel refused its input")
        answers = {"y": 2 * x, "z": -x}
        return [answers[name][self.rows_lost :] for name in outputs]

    def stop(self) -> None:
        self.stopped = True
        self.let_go()

    def let_go(self, times: int = 1) -> None:
        """Let as many runs end as told."""
        for _ in range(times):
            self._gate.put(None)

    async def entered(self) -> None:
        """Wait until the engine has been given one more batch."""
        await asyncio.to_thread(self._entered.get, timeout=_PATIENCE_S)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def statistics() -> ModelStatistics:
    return ModelStatistics()


@pytest.fixture
def make_batcher(
    engine: FakeEngine, clock: Clock, statistics: ModelStatistics
) -> Callable[..., Batcher]:
    """Builds the batcher of the model "fake" over the fixtures `engine`, `clock`, `statistics`."""

    def make(
        *,
        max_batch_size: int = 8,
        shape: tuple[int, ...] = (1,),
        instances: int = 1,
        max_queue_size: int = 1000,
    ) -> Batcher:
        spec = ModelSpec(
            name="fake",
            max_batch_size=max_batch_size,
            inputs=(TensorSpec("x", "FP32", shape),),
            outputs=(TensorSpec("y", "FP32", shape), TensorSpec("z", "FP32", shape)),
        )
        return Batcher(
            engine,
            spec=spec,
            statistics=statistics,
            instances=instances,
            max_queue_size=max_queue_size,
            clock=clock,
        )

    return make


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    """Settings of a gateway on free ports over `repository`, which is in the same folder."""
    return ServeSettings(
        repository=tmp_path / "repository",
        grpc_port=0,
        http_port=0,
        metrics_port=0,
        max_request_bytes=100_000,
        drain_seconds=60.0,
    )


@dataclass(frozen=True)
class Answer:
    """What an ASGI application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True)
class AsgiClient:
    """Calls an application; `chunks` are the pieces in which its body arrives.

    The client goes away when `gone` is set; where `cut_off`, before the last piece.
    """

    app: ASGIApp

    async def call(
        self,
        method: str,
        path: str,
        *,
        chunks: Sequence[bytes] = (b"",),
        headers: Mapping[str, str] | None = None,
        gone: asyncio.Event | None = None,
        cut_off: bool = False,
    ) -> Answer:
        left = list(chunks)
        never = [left.pop()] if cut_off else []
        sent: list[Message] = []

        async def receive() -> Message:
            if left:
                return {
                    "type": "http.request",
                    "body": left.pop(0),
                    "more_body": bool(left or never),
                }
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
            "server": ("test", 80),
        }
        await self.app(scope, receive, send)
        head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], head, body)


@pytest.fixture
def asgi() -> type[AsgiClient]:
    return AsgiClient
