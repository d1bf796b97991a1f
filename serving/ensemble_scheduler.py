"""Answers the requests of an ensemble: each is a flight through its steps.

A step is a request to the scheduler of its model, which is looked up for every request: a model
that was loaded again is used at once. Only those steps run that the outputs asked for depend on.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, Overloaded, Unavailable, Unsupported
from ridgeline.model import ModelSpec
from serving.contract import check
from serving.ensemble import Plan, Step, check_models, found
from serving.ensemble_flight import Flight, of_rank
from serving.request import InferRequest, InferResponse
from serving.statistics import BatchTimes, FailureReason, ModelStatistics
from serving.version import ReadyVersion, Surroundings

# Triton's ensembles answer with these, whether or not a request belongs to a sequence.
_SEQUENCE = {"sequence_id": 0, "sequence_start": False, "sequence_end": False}


class EnsembleScheduler:
    """Answers the requests of one version of an ensemble. `check` comes before the first one."""

    def __init__(
        self,
        plan: Plan,
        *,
        config: model_config_pb2.ModelConfig,
        spec: ModelSpec,
        version: str,
        statistics: ModelStatistics,
        within: Surroundings,
    ) -> None:
        self._plan = plan
        self._config = config
        self._spec = spec
        self._version = version
        self._statistics = statistics
        self._within = within
        self._checked: tuple[ReadyVersion, ...] = ()
        self._decoupled: Step | None = None
        self._names = tuple(tensor.name for tensor in spec.outputs)
        self._ranks = {tensor.name: len(spec.full_shape(tensor)) for tensor in spec.outputs}
        self._in_flight = self._held_bytes = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting_requests(self) -> int:
        """None waits here: requests wait before the models of the steps."""
        return 0

    def check(self) -> None:
        """Look whether the models fit the plan, as they are now.

        Raises Unavailable where one is not ready, InvalidInput where one does not fit, Unsupported
        where several of them give any number of answers.
        """
        name, find = self._spec.name, self._within.find
        models = tuple(found(step, name=name, find=find) for step in self._plan.steps)
        check_models(self._plan, models, spec=self._spec)
        decoupled = [
            step
            for step, model in zip(self._plan.steps, models, strict=True)
            if model.loaded.config.model_transaction_policy.decoupled
        ]
        if len(decoupled) > 1:
            raise Unsupported(
                f"ensemble {name!r} has several decoupled steps: "
                f"{', '.join(step.model for step in decoupled)}; one is possible"
            )
        self._decoupled = decoupled[0] if decoupled else None
        self._config.model_transaction_policy.decoupled = bool(decoupled)
        self._checked = models

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """The one answer; raises what a step raises, with the names of ensemble and model.

        Raises Unsupported where a step may give any number of answers.
        """
        if self._decoupled is not None:
            raise Unsupported(
                f"model {self._spec.name!r} may give any number of answers (decoupled transaction "
                "policy): it is for streams only"
            )
        with self._counted(request) as (flight, steps):
            await flight.run(steps)
            return self._response(request, flight)

    async def stream(self, request: InferRequest, /) -> AsyncGenerator[InferResponse, None]:
        """The one answer; or, of each answer of a decoupled step, what the steps behind it make."""
        if self._decoupled is None:
            yield await self.infer(request)
            return
        with self._counted(request) as (flight, steps):
            step = self._decoupled
            if step not in steps:
                await flight.run(steps)
                yield self._response(request, flight)
                return
            later = _behind(step, steps)
            before = [one for one in steps if one is not step and one not in later]
            await flight.run(before, later=(step, *later))
            async with contextlib.aclosing(flight.answers(step)) as answers:
                async for tensors in answers:
                    branch = flight.branch(tensors)
                    await branch.run(later)
                    yield self._response(request, branch)

    async def close(self, *, drain_seconds: float) -> None:
        """Refuse new requests; wait for the accepted ones, for `drain_seconds` at most.

        What is not done by then fails with the models of its steps, which are closed later.
        """
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), drain_seconds)

    @contextlib.contextmanager
    def _counted(self, request: InferRequest) -> Iterator[tuple[Flight, tuple[Step, ...]]]:
        """A request from its acceptance to its end: among those in flight, in the statistics."""
        begin_ns = time.monotonic_ns()
        try:
            size_bytes = self._accept(request)
        except (InvalidInput, Unavailable) as error:
            if isinstance(error, InvalidInput):
                self._statistics.record_invalid()
            else:
                self._statistics.record_failure(FailureReason.REJECTED)
            raise
        self._in_flight += 1
        self._held_bytes += size_bytes
        self._idle.clear()
        flight = self._flight(request, begin_ns=begin_ns)
        try:
            yield flight, self._plan.needed_for(request.outputs or self._names)
        except BaseException as error:
            gone = isinstance(error, asyncio.CancelledError | GeneratorExit)
            self._statistics.record_failure(
                FailureReason.CANCELED if gone else FailureReason.OTHER,
                request_ns=time.monotonic_ns() - begin_ns,
            )
            raise
        else:
            self._record(request, flight.times, took_ns=time.monotonic_ns() - begin_ns)
        finally:
            self._held_bytes -= size_bytes
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _accept(self, request: InferRequest) -> int:
        """The bytes of a request that may begin. Raises what keeps it from that."""
        name, settings = self._spec.name, self._within.settings
        if self._closing:
            raise Unavailable(f"model {name!r} is stopping and takes no new requests")
        check(request, spec=self._spec)
        refusal = Overloaded if settings.status_codes == "precise" else Unavailable
        if self._in_flight >= settings.max_queue_size:
            raise refusal(
                f"model {name!r}: Exceeds maximum queue size of {settings.max_queue_size} "
                "requests in flight; send it again later"
            )
        size_bytes = sum(array.nbytes for array in request.inputs.values())
        if self._in_flight and self._held_bytes + size_bytes > settings.max_queue_bytes:
            raise refusal(
                f"model {name!r}: the requests in flight hold {self._held_bytes} bytes, "
                f"at most {settings.max_queue_bytes} may; send it again later"
            )
        return size_bytes

    def _flight(self, request: InferRequest, *, begin_ns: int) -> Flight:
        deadline_ns = request.deadline_ns
        if request.timeout_ns:
            until_ns = begin_ns + request.timeout_ns
            deadline_ns = until_ns if deadline_ns is None else min(deadline_ns, until_ns)
        return Flight(
            request,
            name=self._spec.name,
            wanted=request.outputs or self._names,
            deadline_ns=deadline_ns,
            model_of=self._model_of,
        )

    def _model_of(self, step: Step) -> ReadyVersion:
        """The model of a step as it is now; one that was loaded again is checked again.

        Raises Unavailable where it is not ready, or fits no more.
        """
        model = found(step, name=self._spec.name, find=self._within.find)
        if not any(model is checked for checked in self._checked):
            try:
                self.check()
            except (InvalidInput, Unsupported) as error:
                raise Unavailable(f"a model was loaded that does not fit: {error}") from None
        return model

    def _record(self, request: InferRequest, times: BatchTimes, *, took_ns: int) -> None:
        """Count an answer as Triton does: the computing of all steps, and no queue of its own."""
        rows = next(iter(request.inputs.values())).shape[0] if self._spec.batches else 1
        self._statistics.record_batch(times, rows=rows)
        self._statistics.record_answers(times, rows=rows, requests=[(took_ns, 0)])

    def _response(self, request: InferRequest, flight: Flight) -> InferResponse:
        return InferResponse(
            model_name=self._spec.name,
            model_version=self._version,
            outputs={
                name: of_rank(flight.tensors[name], self._ranks[name])
                for name in request.outputs or self._names
            },
            id=request.id,
            parameters={key: request.parameters.get(key, no) for key, no in _SEQUENCE.items()},
        )


def _behind(step: Step, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Those of the steps, which are in order, that need what one of them makes."""
    made, later = set(step.outputs.values()), []
    for one in steps:
        if not made.isdisjoint(one.inputs.values()):
            made.update(one.outputs.values())
            later.append(one)
    return tuple(later)
