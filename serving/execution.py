"""One batch with the engine: packed, run, and, where that fails, run again request by request.

Happens in a worker thread. Knows no queue and no caller.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mypy_extensions import mypyc_attr

from ridgeline.errors import RidgelineError, Unavailable
from ridgeline.model import ModelSpec
from serving.engine import Engine
from serving.job import BatchOutputs, Job
from serving.packing import Packer
from serving.statistics import BatchTimes
from serving.waiting import Batch


class EngineFault(Exception):
    """The engine failed on a request; its cause is the engine's own error."""


_NO_TIMES = BatchTimes(0, 0, 0)


@dataclass(slots=True)
class Run:
    """A batch that is with the engine, and what became of it: outputs or an error."""

    batch: Batch
    started_ns: int
    expected_ns: int
    alone: bool = False
    begun: bool = False
    outputs: BatchOutputs | None = None
    error: Exception | None = None
    times: BatchTimes = _NO_TIMES
    retried: "Sequence[Run]" = ()  # its requests one by one, where the batch failed
    ended: bool = False


@mypyc_attr(allow_interpreted_subclasses=True)
class BatchRunner:
    """Runs the batches of one model; several threads may do so at once."""

    def __init__(self, engine: Engine, *, spec: ModelSpec, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._name, self._batches = spec.name, spec.batches
        self._packer = Packer(spec)
        self._names = [tensor.name for tensor in spec.outputs]

    def execute(self, run: Run) -> None:
        """Run a batch in a worker thread; where it fails, each request alone. Never raises."""
        run.started_ns, run.begun = self._clock(), True
        if any(job.done for job in run.batch.jobs):  # they left while waiting for the thread
            run.batch = run.batch.without_done()
        batch = run.batch
        if not batch.jobs:
            return
        try:
            self._run_together(run)
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises belongs to its callers
            run.times = BatchTimes(0, self._clock() - run.started_ns, 0)
            if len(batch.jobs) == 1:
                run.error = _fault(error, model=self._name)
                return
            run.retried = [
                Run(Batch([job], last - first, {job: first}, last - first), run.started_ns, 0)
                for job, first, last in batch.parts()
                if not job.done
            ]
            for alone in run.retried:
                self.execute(alone)

    def _run_together(self, run: Run) -> None:
        begin_ns = time.perf_counter_ns()
        inputs = self._packer.pack(run.batch)
        packed_ns = time.perf_counter_ns()
        names = self._wanted(run.batch.jobs)
        arrays = self._engine.run(inputs, outputs=names, alone=run.alone)
        ran_ns = time.perf_counter_ns()
        if self._batches:
            _check_rows(arrays, names=names, rows=run.batch.rows, model=self._name)
        run.times = BatchTimes(
            compute_input_ns=packed_ns - begin_ns,
            compute_infer_ns=ran_ns - packed_ns,
            compute_output_ns=time.perf_counter_ns() - ran_ns,
            started_ns=run.started_ns,
        )
        run.outputs = BatchOutputs(names, arrays, count=run.batch.rows, times=run.times)

    def _wanted(self, jobs: Sequence[Job]) -> list[str]:
        """The outputs that at least one request of the batch asks for, in the model's order."""
        asked: set[str] = set()
        for job in jobs:
            if not job.outputs:
                return self._names
            asked.update(job.outputs)
        return [name for name in self._names if name in asked]


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
    if isinstance(answer, Unavailable) and isinstance(error, Unavailable):
        answer.retry_after_ns = error.retry_after_ns
    answer.__cause__ = error
    return answer
