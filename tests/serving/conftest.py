"""A clock that stands still, an engine that waits to be let go, an ASGI client without sockets."""

import asyncio
import contextlib
import gc
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.types import ASGIApp, Message

from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.batcher import Batcher
from serving.job import FutureJob
from serving.policy import BatchPolicy, QueuePolicy
from serving.request import InferRequest, Tensors
from serving.scheduler import job_arguments
from serving.service_time import ServiceTime
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

    While `held`, every run waits for one `let_go`; where they are held `apart`, for the one of the
    run that begins with that number. `batches` are the inputs it was run with, and `alone` says of
    each whether it had the machine for itself.
    """

    held: bool = False
    apart: bool = False
    batches: list[np.ndarray] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    stopped: bool = False
    rows_lost: int = 0
    _entered: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)
    _gates: dict[float, queue.SimpleQueue[None]] = field(default_factory=dict)

    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (FREE, FREE)),)
    outputs: tuple[TensorSpec, ...] = (
        TensorSpec("y", "FP32", (FREE, FREE)),
        TensorSpec("z", "FP32", (FREE, FREE)),
    )

    def run(
        self, inputs: Mapping[str, np.ndarray], /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        x = inputs["x"]
        self.batches.append(x)
        self.asked.append(tuple(outputs))
        self.alone.append(alone)
        self.threads.add(threading.current_thread().name)
        self._entered.put(None)
        if self.held:
            self._gate(float(x.flat[0]) if self.apart else 0).get(timeout=_PATIENCE_S)
        if self.stopped:
            raise RuntimeError("cut short")
        if x.size and float(x.min()) < 0:
            raise RuntimeError("a kernel refused its input")
        answers = {"y": 2 * x, "z": -x}
        return [answers[name][self.rows_lost :] for name in outputs]

    def stop(self) -> None:
        self.stopped = True
        self.let_go()

    def let_go(self, times: int = 1, *, of: float = 0) -> None:
        """Let as many runs end as told; where they are held apart, those that begin with `of`."""
        for _ in range(times):
            self._gate(of).put(None)

    async def entered(self, times: int = 1) -> None:
        """Wait until the engine has been given so many more batches."""
        for _ in range(times):
            await asyncio.to_thread(self._entered.get, timeout=_PATIENCE_S)

    def _gate(self, number: float) -> queue.SimpleQueue[None]:
        return self._gates.setdefault(number, queue.SimpleQueue())


@contextlib.contextmanager
def _left_in_cycles(*kinds: type) -> Iterator[list[object]]:
    """The objects of these kinds that the body leaves for the garbage collector to find."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += [thing for thing in gc.garbage if isinstance(thing, kinds)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.fixture
def left_in_cycles() -> Callable[..., contextlib.AbstractContextManager[list[object]]]:
    """Until it is collected, garbage holds what was read; and collecting stops everything else."""
    return _left_in_cycles


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
def make_engine() -> type[FakeEngine]:
    """For tests of several models: each has its engine."""
    return FakeEngine


@pytest.fixture
def make_batcher(
    engine: FakeEngine, clock: Clock, statistics: ModelStatistics
) -> Iterator[Callable[..., Batcher]]:
    """Builds the batcher of the model "fake" over the fixtures `engine`, `clock`, `statistics`.

    What is not named here are fields of its policy.
    """
    made: list[tuple[Batcher, FakeEngine]] = []

    def make(
        *,
        of: FakeEngine = engine,
        max_batch_size: int = 8,
        shape: tuple[int, ...] = (1,),
        instances: int = 1,
        max_queue_size: int = 1000,
        max_queue_bytes: int = 2**30,
        patience_ns: int = 10_000_000_000,
        queue: Mapping[str, Any] | None = None,
        batcher: Mapping[str, Any] | None = None,
        **policy: Any,
    ) -> Batcher:
        spec = ModelSpec(
            name="fake",
            max_batch_size=max_batch_size,
            inputs=(TensorSpec("x", "FP32", shape),),
            outputs=(TensorSpec("y", "FP32", shape), TensorSpec("z", "FP32", shape)),
        )
        queue_policy = QueuePolicy(max_requests=max_queue_size, **(queue or {}))
        options = {"statistics": statistics, "at_once_ns": 0, "clock": clock, **(batcher or {})}
        built = Batcher(
            of,
            spec=spec,
            policy=BatchPolicy(
                queue=queue_policy,
                max_queue_bytes=max_queue_bytes,
                patience_ns=patience_ns,
                **policy,
            ),
            instances=instances,
            **options,
        )
        made.append((built, of))
        return built

    yield make
    for built, of in made:
        of.held = False
        of.let_go(len(of.batches) + 1)
        built._workers.close()


def calibrated(time_ns: Callable[[int], int], *, max_rows: int = 8) -> ServiceTime:
    """What a start would have learned of an engine that takes so long for so many rows."""
    times = ServiceTime(max_rows)
    for rows in times.sizes:
        times.calibrate(rows=rows, took_ns=time_ns(rows))
    return times


@pytest.fixture(name="calibrated")
def _calibrated() -> Callable[..., ServiceTime]:
    return calibrated


async def _infer(
    batcher: Batcher, *values: float, x: np.ndarray | None = None, **what: Any
) -> Tensors:
    """What a caller of the data plane does; one row for each value, or `x` as it is."""
    if x is None:
        x = np.array(values, dtype=np.float32).reshape(-1, 1)
    request = InferRequest("fake", {"x": x}, **what)
    job = FutureJob(
        job_arguments(request, spec=batcher._spec),
        future=asyncio.get_running_loop().create_future(),
    )
    batcher.submit(job)
    try:
        return await job.future
    except asyncio.CancelledError:
        batcher.cancel(job)
        raise


@pytest.fixture
def infer() -> Callable[..., Awaitable[Tensors]]:
    """Sends a request to a batcher and waits for its answer."""
    return _infer


async def _ask(batcher: Batcher, *values: float, **what: Any) -> asyncio.Task[Tensors]:
    task = asyncio.create_task(_infer(batcher, *values, **what))
    await asyncio.sleep(0)
    return task


@pytest.fixture
def ask() -> Callable[..., Awaitable[asyncio.Task[Tensors]]]:
    """Sends a request; it waits in the batcher, or has failed, by the time this returns."""
    return _ask


@pytest.fixture
def make_busy(
    make_batcher: Callable[..., Batcher], engine: FakeEngine
) -> Callable[..., Awaitable[tuple[Batcher, asyncio.Task[Tensors]]]]:
    """Builds a batcher whose engine is held by one request (of the value 0), and that request."""

    async def make(**what: Any) -> tuple[Batcher, asyncio.Task[Tensors]]:
        engine.held = True
        batcher = make_batcher(**what)
        first = await _ask(batcher, 0)
        await engine.entered()
        return batcher, first

    return make


@pytest.fixture
async def busy(
    make_busy: Callable[..., Awaitable[tuple[Batcher, asyncio.Task[Tensors]]]],
) -> tuple[Batcher, asyncio.Task[Tensors]]:
    """As `make_busy`, with nothing further asked for."""
    return await make_busy()


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
