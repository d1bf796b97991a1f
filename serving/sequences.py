"""Sequences: requests that belong together, answered one by one in their order.

A sequence's next request is a request of the batcher like any other, with the controls and the
states of its sequence as further inputs: so different sequences share batches, row by row. What
the model gives as its next state is kept until then.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import numpy as np

from ridgeline.datatypes import datatype
from ridgeline.errors import DeadlineExceeded, InvalidInput, Malformed, Unavailable
from ridgeline.model import ModelSpec
from serving.contract import check
from serving.request import InferRequest, InferResponse
from serving.scheduler import BatchScheduler
from serving.sequence_policy import Correlation, Flag, SequencePolicy
from serving.statistics import FailureReason, ModelStatistics

_NS_PER_S = 1_000_000_000
_MOST_ID = 2**64 - 1
SequenceId = int | str


@dataclass(eq=False)
class _Sequence:
    """One sequence. Those of one id that follow each other share the `turn`."""

    id: SequenceId
    states: dict[str, np.ndarray]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    earlier: "_Sequence | None" = None  # of the same id, cut short by this one
    pending: int = 0
    has_begun: bool = False
    has_slot: bool = False
    has_ended: bool = False
    timer: asyncio.TimerHandle | None = None


class SequenceScheduler:
    """Answers the requests of sequences. `spec` is what clients see, `batches` runs the rest."""

    def __init__(
        self,
        batches: BatchScheduler,
        *,
        spec: ModelSpec,
        policy: SequencePolicy,
        statistics: ModelStatistics,
        max_queue_size: int,
        refusal: type[Unavailable],
    ) -> None:
        self._batches, self._spec, self._policy = batches, spec, policy
        self._statistics = statistics
        self._max_queue_size, self._refusal = max_queue_size, refusal
        self._states = {
            state.input_name: state.initial[np.newaxis] if spec.batches else state.initial
            for state in policy.states
        }
        self._sequences: dict[SequenceId, _Sequence] = {}
        self._slots = asyncio.Semaphore(policy.most)
        self._pending = self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    @property
    def waiting_requests(self) -> int:
        """How many accepted requests wait for their turn, or for the engine."""
        return self._waiting + self._batches.waiting_requests

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """Answer one request of a sequence, behind those before it.

        Raises InvalidInput where it does not fit the model, names no sequence, or one that has not
        begun; the refusal where too many wait; DeadlineExceeded; what the batcher raises. A request
        that fails leaves the states of its sequence as they were.
        """
        sequence, ends = self._accept(request)
        try:
            await self._wait_for_turn(sequence, deadline_ns=request.deadline_ns)
            try:
                return await self._run(sequence, request, ends=ends)
            finally:
                sequence.turn.release()
        finally:
            self._leave(sequence, ends=ends)

    async def stream(self, request: InferRequest, /) -> AsyncGenerator[InferResponse, None]:
        """The one answer."""
        yield await self.infer(request)

    async def close(self, *, drain_seconds: float) -> None:
        """Refuse new requests, answer the accepted ones, for `drain_seconds` at most; then stop."""
        self._closing = True
        until_ns = time.monotonic_ns() + int(drain_seconds * _NS_PER_S)
        with contextlib.suppress(TimeoutError):  # the batcher tells those that are left
            await asyncio.wait_for(self._idle.wait(), drain_seconds)
        for sequence in list(self._sequences.values()):
            if sequence.timer:
                sequence.timer.cancel()
                self._expire(sequence)
        left_ns = max(0, until_ns - time.monotonic_ns())
        await self._batches.close(drain_seconds=left_ns / _NS_PER_S)

    # --- at the door ----------------------------------------------------------------------------

    def _accept(self, request: InferRequest) -> tuple[_Sequence, bool]:
        """Find or begin the sequence of a request, which counts there from now on."""
        name = self._spec.name
        try:
            key = self._id_of(request)
            starts, ends = (
                _boolean(request, parameter) for parameter in ("sequence_start", "sequence_end")
            )
            check(request, spec=self._spec)
            if self._spec.batches and next(iter(request.inputs.values())).shape[0] != 1:
                raise InvalidInput(
                    f"inference request to model {name!r} must specify batch-size 1 due to "
                    "requirements of sequence batcher"
                )
            for correlation in self._policy.correlations:
                _correlation_value(correlation, key)
            if not starts and key not in self._sequences:
                raise InvalidInput(
                    f"inference request for sequence {key} to model {name!r} must specify the "
                    "START flag on the first request of the sequence"
                )
        except InvalidInput:
            self._statistics.record_invalid()
            raise
        if self._closing:
            raise Unavailable(f"model {name!r} is stopping and takes no new requests")
        known = self._sequences.get(key)
        goes_on = known is not None and known.has_slot and not known.pending
        if self._waiting >= self._max_queue_size and not goes_on:  # else none could ever end
            self._statistics.record_failure(FailureReason.REJECTED)
            raise self._refusal(
                f"model {name!r}: Exceeds maximum queue size of {self._max_queue_size} "
                "waiting requests; send it again later"
            )
        sequence = self._begin(key) if starts else self._sequences[key]
        if ends:
            del self._sequences[key]
        if sequence.timer:
            sequence.timer.cancel()
            sequence.timer = None
        sequence.pending += 1
        self._pending += 1
        self._idle.clear()
        return sequence, ends

    def _id_of(self, request: InferRequest) -> SequenceId:
        key = request.parameters.get("sequence_id", 0)
        if isinstance(key, (bool, float)) or (isinstance(key, int) and not 0 <= key <= _MOST_ID):
            raise Malformed(
                f"sequence_id must be a whole number up to 2**64-1 or a text, received {key!r}"
            )
        if not key:
            raise InvalidInput(
                f"inference request to model {self._spec.name!r} must specify a non-zero or "
                "non-empty correlation ID"
            )
        return key

    def _begin(self, key: SequenceId) -> _Sequence:
        """A new sequence; as in Triton, it cuts one of the same id short that has not ended."""
        earlier = self._sequences.get(key)
        sequence = _Sequence(key, dict(self._states))
        if earlier is not None:
            sequence.turn, sequence.earlier = earlier.turn, earlier
            if earlier.timer:
                earlier.timer.cancel()
        self._sequences[key] = sequence
        return sequence

    # --- its turn -------------------------------------------------------------------------------

    async def _wait_for_turn(self, sequence: _Sequence, *, deadline_ns: int | None) -> None:
        """Wait for the requests before it, and for a slot where its sequence has none yet."""
        seconds = None
        if deadline_ns is not None:
            seconds = max(0, deadline_ns - time.monotonic_ns()) / _NS_PER_S
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await sequence.turn.acquire()
                try:
                    await self._take_slot(sequence)
                except BaseException:
                    sequence.turn.release()
                    raise
        except TimeoutError:
            self._statistics.record_failure(FailureReason.REJECTED)
            late = "the deadline passed while the request waited for its turn in the sequence"
            raise DeadlineExceeded(f"model {self._spec.name!r}: {late}") from None
        except asyncio.CancelledError:
            self._statistics.record_failure(FailureReason.CANCELED)
            raise
        finally:
            self._waiting -= 1

    async def _take_slot(self, sequence: _Sequence) -> None:
        earlier, sequence.earlier = sequence.earlier, None
        while earlier is not None:
            if earlier.has_slot:
                earlier.has_slot, sequence.has_slot = False, True
            earlier = earlier.earlier
        if not sequence.has_slot:
            await self._slots.acquire()
            sequence.has_slot = True

    async def _run(
        self, sequence: _Sequence, request: InferRequest, *, ends: bool
    ) -> InferResponse:
        inputs = {**request.inputs, **sequence.states}
        now = {"START": not sequence.has_begun, "END": ends, "READY": True}
        for flag in self._policy.flags:
            inputs[flag.name] = self._control(_flag_value(flag, now[flag.when]))
        for correlation in self._policy.correlations:
            inputs[correlation.name] = self._control(_correlation_value(correlation, sequence.id))
        outputs = request.outputs
        if outputs:
            outputs += tuple(state.output_name for state in self._policy.states)
        response = await self._batches.infer(replace(request, inputs=inputs, outputs=outputs))
        given = dict(response.outputs)
        # Copies: what the batch gave is a view of all its rows.
        sequence.states = {
            state.input_name: given.pop(state.output_name).copy() for state in self._policy.states
        }
        sequence.has_begun = True
        return replace(response, outputs=given)

    def _control(self, value: np.ndarray) -> np.ndarray:
        return value[np.newaxis] if self._spec.batches else value

    def _leave(self, sequence: _Sequence, *, ends: bool) -> None:
        sequence.pending -= 1
        self._pending -= 1
        sequence.has_ended = sequence.has_ended or ends
        if not self._pending:
            self._idle.set()
        if sequence.pending:
            return
        if sequence.has_ended or self._sequences.get(sequence.id) is not sequence:
            self._free(sequence)
        elif not self._closing:
            idle_s = self._policy.idle_ns / _NS_PER_S
            loop = asyncio.get_running_loop()
            sequence.timer = loop.call_later(idle_s, self._expire, sequence)

    def _expire(self, sequence: _Sequence) -> None:
        """Nobody has continued it for too long: it is forgotten."""
        if self._sequences.get(sequence.id) is sequence:
            del self._sequences[sequence.id]
        self._free(sequence)

    def _free(self, sequence: _Sequence) -> None:
        """Give the slots back of a sequence, and of those it has cut short before it had one."""
        found: _Sequence | None = sequence
        while found is not None:
            if found.has_slot:
                found.has_slot = False
                self._slots.release()
            found = found.earlier


def _boolean(request: InferRequest, parameter: str) -> bool:
    value = request.parameters.get(parameter, False)
    if not isinstance(value, bool):
        raise Malformed(f"{parameter} must be a boolean, received {value!r}")
    return value


def _flag_value(flag: Flag, holds: bool) -> np.ndarray:
    return np.array([flag.values[holds]], datatype(flag.datatype).numpy)


def _correlation_value(correlation: Correlation, key: SequenceId) -> np.ndarray:
    """The id in the type that the model wants. Raises InvalidInput where it does not fit."""
    kind = datatype(correlation.datatype)
    if kind.name == "BYTES":
        return np.array([str(key).encode()], np.object_)
    limits = np.iinfo(kind.numpy)
    if isinstance(key, str) or not key <= limits.max:
        raise InvalidInput(
            f"the model takes its correlation id as {kind.name}, received the sequence id {key!r}"
        )
    return np.array([key], kind.numpy)
