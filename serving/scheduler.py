"""What answers the requests of a model version: the contract, and the scheduler that batches.

A plain model has a `BatchScheduler`. Models that are run otherwise (ensembles, sequences, decoupled
models) bring a scheduler of their own; whoever calls one needs to know no difference.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, ModelSpec
from serving.batcher import Batcher
from serving.contract import check
from serving.job import FutureJob, JobArguments
from serving.request import InferRequest, InferResponse
from serving.statistics import ModelStatistics


class Scheduler(Protocol):
    """Answers the requests of one model version; used in the event loop only."""

    @property
    def waiting_requests(self) -> int:
        """How many accepted requests wait for the engine."""

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """The one answer to a request; a caller that is cancelled takes its request back.

        Raises InvalidInput where the request does not fit the model, Overloaded or Unavailable
        where it is refused, DeadlineExceeded, EngineFault; Unsupported for a model that may give
        any number of answers.

        Requests are accepted in the order of the calls: nothing is awaited before.
        """

    def stream(self, request: InferRequest, /) -> AsyncGenerator[InferResponse, None]:
        """All answers to a request, as they come: one, for most models. Raises as `infer`.

        Who does not want the rest of them closes it (`aclose`), which drops the request.
        """

    async def close(self, *, drain_seconds: float) -> None:
        """Refuse new requests, answer the accepted ones, for `drain_seconds` at most; then stop."""


class BatchScheduler:
    """Runs requests in batches. `name` and `version` stand in its responses."""

    def __init__(
        self,
        batcher: Batcher,
        *,
        name: str,
        version: str,
        spec: ModelSpec,
        statistics: ModelStatistics,
    ) -> None:
        self._batcher = batcher
        self._name, self._version = name, version
        self._spec = spec
        self._statistics = statistics

    @property
    def waiting_requests(self) -> int:
        """How many accepted requests are not yet with the engine."""
        return self._batcher.waiting_requests

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """Answer one request. Raises the errors of `check` and `Batcher.submit`."""
        try:
            check(request, spec=self._spec)
        except InvalidInput:
            self._statistics.record_invalid()
            raise
        job = FutureJob(
            job_arguments(request, spec=self._spec),
            future=asyncio.get_running_loop().create_future(),
        )
        self._batcher.submit(job)
        try:
            outputs = await job.future
        except asyncio.CancelledError:
            self._batcher.cancel(job)
            raise
        return InferResponse(
            model_name=self._name,
            model_version=self._version,
            outputs=outputs,
            id=request.id,
            times=job.times,
            queued_ns=job.arrived_ns,
        )

    async def stream(self, request: InferRequest, /) -> AsyncGenerator[InferResponse, None]:
        """The one answer."""
        yield await self.infer(request)

    async def close(self, *, drain_seconds: float) -> None:
        """Refuse new requests, answer the accepted ones, for `drain_seconds` at most; then stop."""
        await self._batcher.close(drain_seconds=drain_seconds)


def job_arguments(request: InferRequest, *, spec: ModelSpec) -> JobArguments:
    """What a job takes over from a request that `check` has passed."""
    inputs = tuple(request.inputs.get(tensor.name) for tensor in spec.inputs)
    given = tuple(request.inputs.values())
    shape_key = None
    if spec.batches and any(FREE in tensor.shape or tensor.optional for tensor in spec.inputs):
        # Only requests with the same inputs share a batch.
        shape_key = tuple(None if array is None else array.shape[1:] for array in inputs)
    return {
        "inputs": inputs,
        "rows": given[0].shape[0] if spec.batches else 1,
        "size_bytes": sum(array.nbytes for array in given),
        "outputs": request.outputs,
        "shape_key": shape_key,
        "deadline_ns": request.deadline_ns,
        "timeout_ns": request.timeout_ns,
        "priority": request.priority,
    }
