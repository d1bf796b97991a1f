"""Dynamic batching: a batch is what arrived while the engine was busy. No timer, nothing to tune.

Requests wait in the event loop; a batch runs in a worker thread, one per instance, so that the loop
never blocks. Knows neither gRPC nor HTTP nor ONNX.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.errors import DeadlineExceeded, Overloaded, RidgelineError, Unavailable
from ridgeline.model import FREE, ModelSpec
from serving.engine import Engine
from serving.request import Tensors
from serving.statistics import BatchTimes, FailureReason, ModelStatistics
from serving.waiting import Waiting, WaitingRoom

logger = logging.getLogger(__name__)


class EngineFault(Exception):
    """The engine failed on a request; its cause is the engine's own error."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one request in a batch: outputs or an error, and the times of its run."""

    result: Tensors | Exception
    times: BatchTimes
    rows_run: int  # rows of the run that answered it, 0 where another outcome has counted the run


class Batcher:
    """Serves one model version: accepts requests, runs them in batches, answers each caller.

    `instances` batches may run at once; `max_queue_size` requests may wait. `clock` is monotonic,
    in nanoseconds. Everything but `_run` happens in the event loop that calls `infer`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        spec: ModelSpec,
        statistics: ModelStatistics,
        instances: int,
        max_queue_size: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._statistics = statistics
        self._max_queue_size = max_queue_size
        self._clock = clock
        self._waiting = WaitingRoom()
        self._free_instances = instances
        self._threads = ThreadPoolExecutor(instances, thread_name_prefix=f"engine-{spec.name}")
        self._dispatch_is_due = False
        self._closing = False
        self._unanswered = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._mixed_shapes = any(FREE in tensor.shape for tensor in spec.inputs)

    @property
    def waiting_requests(self) -> int:
        """How many accepted requests are not yet with the engine."""
        return len(self._waiting)

    async def infer(
        self, inputs: Tensors, /, *, outputs: Sequence[str] = (), deadline_ns: int | None = None
    ) -> Tensors:
        """Run one request, whose inputs fit the model's contract, and return its outputs.

        Raises Overloaded where the queue is full, Unavailable while stopping, DeadlineExceeded
        where `deadline_ns` passed before the engine was free, EngineFault where the engine failed.
        """
        waiting = self._accept(inputs, outputs=tuple(outputs), deadline_ns=deadline_ns)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._waiting.remove(waiting)
            if waiting.future.cancelled():  # else its answer was there already, and counted
                self._statistics.record_failure(FailureReason.CANCELED)
            raise
        finally:
            self._unanswered -= 1
            if not self._unanswered:
                self._idle.set()

    async def close(self, *, drain_seconds: float) -> None:
        """Refuse new requests, answer the accepted ones, for `drain_seconds` at most; then stop.

        What the engine has not finished by then is cut short, and its callers receive the fault.
        """
        self._closing = True
        try:
            await asyncio.wait_for(self._idle.wait(), drain_seconds)
        except TimeoutError:
            while left := self._waiting.take(max_rows=0):
                self._refuse(left[0], Unavailable(f"model {self._spec.name!r} is stopping"))
        self._engine.stop()
        await asyncio.to_thread(self._threads.shutdown)

    def _accept(
        self, inputs: Tensors, *, outputs: tuple[str, ...], deadline_ns: int | None
    ) -> Waiting:
        if self._closing:
            self._statistics.record_failure(FailureReason.REJECTED)
            raise Unavailable(f"model {self._spec.name!r} is stopping and takes no new requests")
        if len(self._waiting) >= self._max_queue_size:
            self._statistics.record_failure(FailureReason.REJECTED)
            raise Overloaded(
                f"model {self._spec.name!r}: Exceeds maximum queue size "
                f"of {self._max_queue_size} waiting requests; send it again later"
            )
        loop = asyncio.get_running_loop()
        waiting = Waiting(
            inputs=inputs,
            outputs=outputs,
            rows=next(iter(inputs.values())).shape[0] if self._spec.batches else 1,
            shape_key=self._shape_key(inputs),
            future=loop.create_future(),
            arrived_ns=self._clock(),
            deadline_ns=deadline_ns,
        )
        self._waiting.add(waiting)
        self._unanswered += 1
        self._idle.clear()
        self._dispatch_soon(loop)
        return waiting

    def _shape_key(self, inputs: Tensors) -> Any:
        """Requests with equal keys may share a batch; the contract alone makes most equal."""
        if not self._spec.batches:
            return None
        if not self._mixed_shapes and len(inputs) == len(self._spec.inputs):
            return None
        return tuple(sorted((name, array.shape[1:]) for name, array in inputs.items()))

    def _dispatch_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Dispatch once the loop has read all that has arrived: those requests share the batch."""
        if self._free_instances and not self._dispatch_is_due:
            self._dispatch_is_due = True
            loop.call_soon(self._dispatch, loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._dispatch_is_due = False
        max_rows = self._spec.max_batch_size if self._spec.batches else 1
        while self._free_instances and len(self._waiting):
            batch = [w for w in self._waiting.take(max_rows=max_rows) if not self._too_late(w)]
            if batch:
                self._free_instances -= 1
                run = self._threads.submit(self._run, batch)
                deliver = functools.partial(self._deliver, loop, batch, self._clock())
                run.add_done_callback(functools.partial(loop.call_soon_threadsafe, deliver))

    def _too_late(self, waiting: Waiting) -> bool:
        """Whether nobody waits for the answer any more; answers those whose deadline passed."""
        if waiting.future.done():
            return True
        if waiting.deadline_ns is None or self._clock() < waiting.deadline_ns:
            return False
        late = f"model {self._spec.name!r}: the deadline passed while the request was waiting"
        self._refuse(waiting, DeadlineExceeded(late))
        return True

    def _refuse(self, waiting: Waiting, error: RidgelineError) -> None:
        """Answer a request that never reached the engine, if its caller is still there."""
        if not waiting.future.done():
            self._statistics.record_failure(FailureReason.REJECTED)
            waiting.future.set_exception(error)

    def _run(self, batch: list[Waiting]) -> list[_Outcome]:
        """Run a batch in a worker thread; where it fails, each request alone. Never raises."""
        try:
            return _run_together(batch, engine=self._engine, spec=self._spec)
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises belongs to its callers
            if len(batch) == 1:
                fault = _fault(error, model=self._spec.name)
                return [_Outcome(result=fault, times=BatchTimes(0, 0, 0), rows_run=0)]
            return [self._run([waiting])[0] for waiting in batch]

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[Waiting],
        started_ns: int,
        run: Future[list[_Outcome]],
    ) -> None:
        """Answer every caller of a finished batch and start the next one."""
        self._free_instances += 1
        now_ns = self._clock()
        for waiting, outcome in zip(batch, run.result(), strict=True):
            if outcome.rows_run:
                self._statistics.record_batch(outcome.times, rows=outcome.rows_run)
            if waiting.future.done():  # its caller has gone; it was counted as cancelled
                continue
            if isinstance(outcome.result, Exception):
                self._statistics.record_failure(FailureReason.BACKEND)
                waiting.future.set_exception(outcome.result)
                continue
            self._statistics.record_success(
                outcome.times,
                rows=waiting.rows,
                request_ns=now_ns - waiting.arrived_ns,
                queue_ns=started_ns - waiting.arrived_ns,
            )
            waiting.future.set_result(outcome.result)
        self._dispatch_soon(loop)


def _run_together(batch: list[Waiting], *, engine: Engine, spec: ModelSpec) -> list[_Outcome]:
    """Pack the inputs, run the engine once, and cut its outputs into one piece per request."""
    begin_ns = time.perf_counter_ns()
    inputs = _packed([waiting.inputs for waiting in batch])
    packed_ns = time.perf_counter_ns()
    names = _wanted(batch, spec=spec)
    arrays = engine.run(inputs, outputs=names)
    ran_ns = time.perf_counter_ns()
    rows = sum(waiting.rows for waiting in batch)
    if spec.batches:
        _check_rows(arrays, names=names, rows=rows, model=spec.name)
    results: list[Tensors] = []
    first = 0
    for waiting in batch:
        last = first + waiting.rows
        pieces = arrays if len(batch) == 1 else [array[first:last] for array in arrays]
        by_name = dict(zip(names, pieces, strict=True))
        results.append({name: by_name[name] for name in waiting.outputs or names})
        first = last
    times = BatchTimes(
        compute_input_ns=packed_ns - begin_ns,
        compute_infer_ns=ran_ns - packed_ns,
        compute_output_ns=time.perf_counter_ns() - ran_ns,
    )
    return [
        _Outcome(result=result, times=times, rows_run=rows if position == 0 else 0)
        for position, result in enumerate(results)
    ]


def _packed(requests: Sequence[Tensors]) -> Tensors:
    """The inputs of all requests, one behind the other along the batch axis."""
    if len(requests) == 1:
        return requests[0]
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def _wanted(batch: Sequence[Waiting], *, spec: ModelSpec) -> list[str]:
    """The outputs that at least one request of the batch asks for, in the model's order."""
    names = [tensor.name for tensor in spec.outputs]
    if any(not waiting.outputs for waiting in batch):
        return names
    asked = {name for waiting in batch for name in waiting.outputs}
    return [name for name in names if name in asked]


def _check_rows(
    arrays: Sequence[np.ndarray], *, names: Sequence[str], rows: int, model: str
) -> None:
    """An output without one row per sample cannot be divided among callers."""
    for name, array in zip(names, arrays, strict=True):
        if not array.ndim or array.shape[0] != rows:
            raise EngineFault(
                f"output {name!r} of model {model!r} has shape {list(array.shape)} "
                f"for a batch of {rows} rows; expected {rows} rows"
            )


def _fault(error: Exception, *, model: str) -> Exception:
    """What the caller receives for what the engine raised."""
    if isinstance(error, EngineFault):
        return error
    fault = type(error) if isinstance(error, RidgelineError) else EngineFault
    answer = fault(f"model {model!r}: {error}")
    answer.__cause__ = error
    return answer
