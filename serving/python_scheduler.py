"""Answers the requests of a Python model: one answer each, or, of a decoupled model, a stream."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

import numpy as np

from ridgeline.errors import DeadlineExceeded, InvalidInput, RidgelineError, Unsupported
from ridgeline.model import ModelSpec
from serving.contract import check
from serving.execution import EngineFault
from serving.python_engine import PythonEngine, outcome_of
from serving.python_process import PythonProcess, Received
from serving.python_worker.wire import Message
from serving.request import InferRequest, InferResponse, Tensors
from serving.request_batcher import RequestBatcher, RequestJob
from serving.reshape import Reshapes
from serving.scheduler import job_arguments
from serving.statistics import ModelStatistics
from serving.version import Find

_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000
_Answers = asyncio.Queue[Received | Exception]
_CREDIT_STEP = 16  # responses that were taken before the model is told so


class PythonScheduler:
    """Answers for one version of a Python model, and for the models that it asks itself."""

    def __init__(
        self,
        batcher: RequestBatcher,
        *,
        engine: PythonEngine,
        version: str,
        spec: ModelSpec,
        statistics: ModelStatistics,
        find: Find,
        reshapes: Reshapes,
    ) -> None:
        self._batcher, self._engine = batcher, engine
        self._version, self._spec = version, spec
        self._statistics = statistics
        self._find = find
        self._reshapes = reshapes
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Future[None]] = set()
        engine.on_call = self._on_call

    @property
    def waiting_requests(self) -> int:
        """How many accepted requests are not yet with a worker."""
        return self._batcher.waiting_requests

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """The one answer. Raises Unsupported for a decoupled model, what the model answers."""
        if self._engine.decoupled:
            raise Unsupported(
                f"model {self._spec.name!r} may give any number of answers (decoupled transaction "
                "policy): it is for streams only"
            )
        job = self._job(request)
        self._batcher.submit(job)
        with self._given_up_with(job):
            async with self._until(request.deadline_ns):
                outputs = await job.future
        return self._response(request, outputs, job=job)

    async def stream(self, request: InferRequest, /) -> AsyncGenerator[InferResponse, None]:
        """All answers, as the model sends them."""
        if not self._engine.decoupled:
            yield await self.infer(request)
            return
        job = self._job(request)
        answers: _Answers = asyncio.Queue()  # bounded by the credit
        loop = self._loop
        self._engine.open(
            job.number, lambda received: _call_soon(loop, answers.put_nowait, received)
        )
        job.future.add_done_callback(lambda done: _pass_error(done, answers))
        try:
            self._batcher.submit(job)
            with self._given_up_with(job):
                async for message, arrays in self._received(job, answers, request.deadline_ns):
                    outputs = outcome_of(message["response"], arrays)
                    if isinstance(outputs, Exception):
                        raise outputs
                    yield self._response(request, outputs, job=job)
        finally:
            self._engine.close_stream(job.number)

    async def close(self, *, drain_seconds: float) -> None:
        """Answer what was accepted, for `drain_seconds` at most; then end the processes."""
        await self._batcher.close(drain_seconds=drain_seconds)
        await asyncio.to_thread(self._engine.close)

    def _job(self, request: InferRequest) -> RequestJob:
        try:
            check(request, spec=self._spec)
        except InvalidInput:
            self._statistics.record_invalid()
            raise
        if self._reshapes.inputs:
            seen = replace(request, inputs=self._reshapes.to_model(request.inputs))
        else:
            seen = request
        return RequestJob(
            job_arguments(request, spec=self._spec),
            future=self._loop.create_future(),
            request=seen,
            number=next(self._numbers),
        )

    async def _received(
        self,
        job: RequestJob,
        answers: _Answers,
        deadline_ns: int | None,
    ) -> AsyncGenerator[Received, None]:
        """What the model sends for a request, up to the end. Gives it credit for what is taken."""
        began_ns = time.monotonic_ns()
        for place in itertools.count():
            async with self._until(deadline_ns):
                received = await answers.get()
            if isinstance(received, Exception):
                raise received
            message, _ = received
            if message["say"] == "dead":
                raise EngineFault(f"model {self._spec.name!r}: {message['text']}")
            if message["response"] is not None:
                now_ns = time.monotonic_ns()
                counters = self._statistics.response(place)
                counters.success.add(now_ns - began_ns)
                counters.compute_infer.add(now_ns - began_ns)
                began_ns = now_ns
                yield received
                if place % _CREDIT_STEP == _CREDIT_STEP - 1:
                    self._tell(job, {"do": "credit", "count": _CREDIT_STEP})
            if message["final"]:
                return

    @contextlib.contextmanager
    def _given_up_with(self, job: RequestJob) -> Iterator[None]:
        """Whatever ends what is inside early, ends the request, too."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) or isinstance(error, DeadlineExceeded):
                self._batcher.cancel(job)
                self._tell(job, {"do": "cancel"})
            raise

    @contextlib.asynccontextmanager
    async def _until(self, deadline_ns: int | None) -> AsyncGenerator[None, None]:
        """Raises DeadlineExceeded where what is inside takes longer."""
        left_s = None
        if deadline_ns is not None:
            left_s = max(0, deadline_ns - time.monotonic_ns()) / _NS_PER_S
        try:
            async with asyncio.timeout(left_s):
                yield
        except TimeoutError:
            raise DeadlineExceeded(
                f"model {self._spec.name!r}: the deadline passed before the model answered"
            ) from None

    def _tell(self, job: RequestJob, message: Message) -> None:
        """Tell the worker of a request something, without waiting for it."""
        process = self._engine.process_of(job.number)
        if process is not None:
            message = {**message, "number": job.number}
            self._keep(self._loop.run_in_executor(None, process.send, message))

    def _response(self, request: InferRequest, given: Tensors, *, job: RequestJob) -> InferResponse:
        given = self._reshapes.to_client(given)
        wanted = request.outputs or tuple(tensor.name for tensor in self._spec.outputs)
        return InferResponse(
            model_name=self._spec.name,
            model_version=self._version,
            outputs={name: given[name] for name in wanted if name in given},
            id=request.id,
            times=None if self._engine.decoupled else job.times,
            queued_ns=job.arrived_ns,
        )

    # --- what the model asks of other models -----------------------------------------------------

    def _on_call(self, process: PythonProcess, received: Received) -> None:
        """In the thread of the process."""
        _call_soon(
            self._loop, lambda: self._keep(self._loop.create_task(self._called(process, received)))
        )

    async def _called(self, process: PythonProcess, received: Received) -> None:
        message, arrays = received
        answer: Message = {"do": "answer", "call": message["call"]}
        outputs: list[np.ndarray] = []
        try:
            if message["what"] == "ready":
                answer["ready"] = self._is_ready(message["model"], message["version"])
            else:
                response = await self._asked(message, arrays)
                answer["outputs"], outputs = list(response.outputs), list(response.outputs.values())
        except Exception as error:  # noqa: BLE001 - whatever it is, the model that asks is told
            answer["error"] = f"Model {message['model']} - Error when running inference: {error}"
        await asyncio.to_thread(process.send, answer, outputs)

    def _is_ready(self, model: str, version: str) -> bool:
        try:
            return bool(self._find(model, version=version))
        except RidgelineError:
            return False

    async def _asked(self, message: Message, arrays: list[np.ndarray]) -> InferResponse:
        timeout_ns = message["timeout"] * _NS_PER_US
        model = self._find(message["model"], version=message["version"])
        return await model.scheduler.infer(
            InferRequest(
                model_name=message["model"],
                model_version=message["version"],
                id=message["id"],
                inputs=dict(zip(message["inputs"], arrays, strict=True)),
                outputs=tuple(message["outputs"]),
                deadline_ns=time.monotonic_ns() + timeout_ns if timeout_ns else None,
                timeout_ns=timeout_ns or None,
                parameters=message["parameters"],
            )
        )

    def _keep(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _call_soon(loop: asyncio.AbstractEventLoop, call: object, *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]


def _pass_error(
    done: asyncio.Future[Tensors], answers: asyncio.Queue[Received | Exception]
) -> None:
    """What keeps a request from being run ends its stream."""
    if not done.cancelled() and (error := done.exception()) is not None:
        answers.put_nowait(error if isinstance(error, Exception) else EngineFault(str(error)))
