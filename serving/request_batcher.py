"""Batching for models that take requests as they are, not one packed array.

Everything but the run itself is the batcher's: queue, deadlines, priorities, admission, statistics.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ridgeline.model import TensorSpec
from serving.batcher import Batcher
from serving.execution import BatchRunner, Run
from serving.job import BatchOutputs, FutureJob, JobArguments
from serving.request import InferRequest, Tensors
from serving.statistics import BatchTimes, FailureReason


class RequestJob(FutureJob):
    """A request with all that its client said, whose caller awaits a future."""

    __slots__ = ("number", "request")

    def __init__(
        self,
        arguments: JobArguments,
        *,
        future: asyncio.Future[Tensors],
        request: InferRequest,
        number: int,
    ) -> None:
        super().__init__(arguments, future=future)
        self.request, self.number = request, number

    def answer(self, outputs: BatchOutputs, _first: int, _last: int) -> None:
        """Resolve the future with what the model gave for this request, whatever it is."""
        if not self.future.done():
            self.times = outputs.times
            self.future.set_result(dict(zip(outputs.names, outputs.arrays, strict=True)))


class RequestEngine(Protocol):
    """Runs requests together, each of which gets an answer of its own."""

    def run_requests(self, jobs: Sequence[RequestJob], /) -> list[Tensors | Exception]:
        """For each its outputs, or its error. Raises where they failed together."""

    def stop(self) -> None:
        """Make what still runs fail soon; called from any thread."""


class _Answers(BatchOutputs):
    """What each request of a batch gets."""

    __slots__ = ("results",)

    def __init__(self, results: list[Tensors | Exception], *, count: int, times: BatchTimes):
        super().__init__((), (), count=count, times=times)
        self.results = results


class _NoPacking:
    """Stands where a batcher expects an engine of packed arrays."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, engine: RequestEngine) -> None:
        self.engine = engine

    def run(self, _inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False) -> Any:
        """Never called."""
        raise NotImplementedError(outputs, alone)

    def stop(self) -> None:
        """Pass it on."""
        self.engine.stop()


class _RequestRunner(BatchRunner):
    """Runs the requests of a batch as they are."""

    def __init__(self, engine: RequestEngine, **what: Any) -> None:
        super().__init__(_NoPacking(engine), **what)
        self._by_request = engine

    def _run_together(self, run: Run) -> None:
        begin_ns = time.perf_counter_ns()
        results = self._by_request.run_requests(run.batch.jobs)  # type: ignore[arg-type]
        run.times = BatchTimes(0, time.perf_counter_ns() - begin_ns, 0, run.started_ns)
        run.outputs = _Answers(results, count=run.batch.rows, times=run.times)


class RequestBatcher(Batcher):
    """A batcher over a RequestEngine; requests stay whole, and fail one by one.

    Unless `together`, each runs alone.
    """

    def __init__(self, engine: RequestEngine, *, together: bool, **what: Any) -> None:
        super().__init__(_NoPacking(engine), **what)
        self._runner = _RequestRunner(engine, spec=self._spec, clock=self._clock)
        self._splits = False
        if not together:
            self._most_rows = 1

    def _answer(self, run: Run, outputs: BatchOutputs, *, now_ns: int) -> None:
        if not isinstance(outputs, _Answers):
            raise TypeError(f"expected the answers of requests, received {outputs}")
        counted, rows = [], 0
        for job, result in zip(run.batch.jobs, outputs.results, strict=True):
            if job.done:
                continue
            self._admission.finished(job, now_ns=now_ns)
            if isinstance(result, Exception):
                self._record_failure(job, FailureReason.BACKEND)
                self._fail(job, result)
                continue
            job.done = True
            counted.append((now_ns - job.arrived_ns, run.started_ns - job.arrived_ns))
            rows += job.rows
            arrays: list[np.ndarray] = list(result.values())
            own = BatchOutputs(list(result), arrays, count=job.rows, times=run.times)
            job.answer(own, 0, job.rows)
            self._answered()
        self._statistics.record_batch(run.times, rows=run.batch.rows)
        self._statistics.record_answers(run.times, rows=rows, requests=counted)
