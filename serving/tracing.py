"""Traces of requests, as clients ask for them while the server runs: Triton's trace extension.

While nothing is traced, a request pays for one look at `Tracing.active`.
"""

import contextlib
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.errors import InvalidInput, Malformed, Unsupported
from serving.request import InferRequest, InferResponse, Tensors
from serving.settings import ServeSettings
from serving.trace_file import Timestamp, TracedTensor, TraceRecord, TraceWriter
from serving.version import ReadyVersion

TraceValue = list[str] | str | None
_OFF, _TIMESTAMPS, _TENSORS = LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
_LIMITS = {
    "trace_rate": (1, 2**32 - 1),
    "trace_count": (-1, 2**31 - 1),
    "log_frequency": (0, 2**32 - 1),
}
_WHOLE_NUMBER = re.compile("-?[0-9]{1,20}")
_MAX_TENSOR_BYTES = 64 * 1024 * 1024  # of one request; what comes after is left out
_MAX_ANSWERS = 1024  # of one request, whose times are told
_SHOWN = 80


@dataclass(frozen=True)
class TraceSettings:
    """Triton's settings: one of `trace_rate` requests is traced, `trace_count` in all (-1: any).

    After `log_frequency` traces the next file begins; 0 writes all into one. Raises InvalidInput.
    """

    trace_level: tuple[str, ...] = (_OFF,)
    trace_rate: int = 1000
    trace_count: int = -1
    log_frequency: int = 0

    def __post_init__(self) -> None:
        unknown = [level for level in self.trace_level if level not in LEVELS]
        if unknown or not self.trace_level:
            words = ", ".join(unknown)[:_SHOWN]
            raise InvalidInput(f"trace_level must be of {', '.join(LEVELS)}, received {words!r}")
        if _OFF in self.trace_level and len(self.trace_level) > 1:
            raise InvalidInput("trace_level OFF stands alone")
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise InvalidInput(
                    f"{name} must lie in {least}..{most}, received {getattr(self, name)}"
                )

    @property
    def on(self) -> bool:
        """Whether anything is to be traced."""
        return self.trace_level != (_OFF,)


@dataclass
class _Sampler:
    """Which requests are traced, by the settings of one model or of all others."""

    settings: TraceSettings
    left: int  # of the count
    seen: int = 0

    @property
    def active(self) -> bool:
        return self.settings.on and self.left != 0

    def takes(self) -> bool:
        """Whether the request that has come is traced."""
        if not self.active:
            return False
        self.seen += 1
        if self.seen % self.settings.trace_rate:
            return False
        if self.left > 0:
            self.left -= 1
        return True


@dataclass
class _Trace:
    """What is seen of a request on its way."""

    id: int
    settings: TraceSettings
    began_ns: int
    inputs: Tensors
    parent_id: int = 0  # of the request that this one is a step of
    answered_ns: list[int] = field(default_factory=list)
    tensors: list[TracedTensor] = field(default_factory=list)
    tensor_bytes: int = 0
    last: InferResponse | None = None

    def answered(self, response: InferResponse) -> None:
        """Keep what an answer tells: its tensors are copied, since clients may share their memory.

        Those of the request stand before the first one's.
        """
        if not self.last:
            self.keep("TENSOR_QUEUE_INPUT", self.inputs)
        self.last = response
        if len(self.answered_ns) < _MAX_ANSWERS:
            self.answered_ns.append(time.monotonic_ns())
        self.keep("TENSOR_BACKEND_OUTPUT", response.outputs)

    def keep(self, activity: str, tensors: Tensors) -> None:
        if _TENSORS not in self.settings.trace_level:
            return
        for name, array in tensors.items():
            self.tensor_bytes += array.nbytes
            if self.tensor_bytes <= _MAX_TENSOR_BYTES:
                self.tensors.append((activity, name, np.array(array, order="C")))

    def record(self, request: InferRequest, model: ReadyVersion) -> TraceRecord:
        """All of it, once the request has ended."""
        ended_ns = time.monotonic_ns()
        if not self.last:  # it failed
            self.keep("TENSOR_QUEUE_INPUT", self.inputs)
        begin: list[Timestamp] = []
        end: list[Timestamp] = []
        if _TIMESTAMPS in self.settings.trace_level:
            begin.append(("REQUEST_START", self.began_ns))
            if self.last and self.last.queued_ns is not None:
                begin.append(("QUEUE_START", self.last.queued_ns))
            computed_ns = self.answered_ns[0] if self.answered_ns else ended_ns
            end = _compute(self.last, ended_ns=computed_ns)
            end += [("INFER_RESPONSE_COMPLETE", at_ns) for at_ns in self.answered_ns]
            end.append(("REQUEST_END", ended_ns))
        return TraceRecord(
            id=self.id,
            model_name=model.name,
            model_version=model.version,
            request_id=request.id,
            parent_id=self.parent_id,
            log_frequency=self.settings.log_frequency,
            begin=tuple(begin),
            tensors=tuple(self.tensors),
            end=tuple(end),
        )


def _compute(response: InferResponse | None, *, ended_ns: int) -> list[Timestamp]:
    """The times of the batch; those of several batches are one after the other, up to the end."""
    if response is None or response.times is None or not response.times.started_ns:
        return []
    times, at_ns = response.times, response.times.started_ns
    found = [("COMPUTE_START", at_ns)]
    for name, took_ns in (
        ("COMPUTE_INPUT_END", times.compute_input_ns),
        ("COMPUTE_OUTPUT_START", times.compute_infer_ns),
        ("COMPUTE_END", times.compute_output_ns),
    ):
        at_ns = min(at_ns + took_ns, ended_ns)
        found.append((name, at_ns))
    return found


class Tracing:
    """The settings, of the server and of models, and the traces. Used in the event loop only.

    `generation` differs after every change: a front end that sends requests past `infer` must ask
    again. Raises InvalidInput where the folder of `file` is not there.
    """

    def __init__(self, *, file: Path | None = None, settings: TraceSettings | None = None) -> None:
        if file is not None and not file.absolute().parent.is_dir():
            raise InvalidInput(f"the folder of trace_file is not there: {file}")
        self._file = file
        self._writer = None if file is None else TraceWriter(file)
        self._initial = settings or TraceSettings()
        self._refuse_without_file(self._initial)
        self._own: dict[str, dict[str, Any]] = {}  # by model; of the server under ""
        self._samplers = {"": _Sampler(self._initial, self._initial.trace_count)}
        self._traces = 0
        self.generation = 0
        self.active = self._initial.on

    def table(self, model: str = "") -> dict[str, list[str] | str]:
        """The settings of a model, or of the server; `trace_count` is what is left of it."""
        sampler = self._sampler(model)
        return {
            "trace_level": list(sampler.settings.trace_level),
            "trace_rate": str(sampler.settings.trace_rate),
            "trace_count": str(sampler.left),
            "log_frequency": str(sampler.settings.log_frequency),
            "trace_file": "" if self._file is None else str(self._file),
            "trace_mode": "triton",
        }

    def update(self, changes: Mapping[str, TraceValue], *, model: str = "") -> None:
        """Change some settings of a model, or of the server, all or none.

        None takes a model's back to the server's, and the server's to those it was started with.
        Unknown names are ignored, as in Triton. Raises InvalidInput for a wrong value, Unsupported
        for trace_file: what the server writes to is decided where it is started.
        """
        if "trace_file" in changes:
            raise Unsupported("trace file location can not be updated through network protocol")
        known = [spec.name for spec in fields(TraceSettings) if spec.name in changes]
        own = dict(self._own.get(model, {}))
        for name in known:
            if changes[name] in (None, []):
                own.pop(name, None)
            else:
                own[name] = _parsed(name, changes[name])
        if not known:
            return
        everybodys = {} if model == "" else self._own.get("", {})
        self._refuse_without_file(replace(self._initial, **{**everybodys, **own}))
        self._own[model] = own
        if model and not own:
            del self._own[model]
        self._apply(again=model if "trace_count" in known else None)

    async def infer(self, request: InferRequest, model: ReadyVersion) -> InferResponse:
        """`model.scheduler.infer`, traced where it is the request's turn."""
        trace = self._begin(request, model.name)
        if trace is None:
            return await model.scheduler.infer(request)
        return await self._infer(trace, request, model)

    async def stream(
        self, request: InferRequest, model: ReadyVersion
    ) -> AsyncGenerator[InferResponse, None]:
        """`model.scheduler.stream`, traced where it is the request's turn."""
        trace = self._begin(request, model.name)
        responses = (
            model.scheduler.stream(request)
            if trace is None
            else self._stream(trace, request, model)
        )
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield response

    def close(self) -> None:
        """Write what has been traced; blocks until that is done."""
        if self._writer is not None:
            self._writer.close()

    async def _infer(
        self, trace: _Trace, request: InferRequest, model: ReadyVersion
    ) -> InferResponse:
        request = replace(request, tracer=_Steps(self, trace))
        try:
            response = await model.scheduler.infer(request)
            trace.answered(response)
        finally:
            self._end(trace, request, model)
        return response

    async def _stream(
        self, trace: _Trace, request: InferRequest, model: ReadyVersion
    ) -> AsyncGenerator[InferResponse, None]:
        request = replace(request, tracer=_Steps(self, trace))
        try:
            async with contextlib.aclosing(model.scheduler.stream(request)) as responses:
                async for response in responses:
                    trace.answered(response)
                    yield response
        finally:
            self._end(trace, request, model)

    def _step_of(self, parent: _Trace, request: InferRequest) -> _Trace:
        """The trace of a step: it is there where that of the whole is, and counts with it."""
        self._traces += 1
        now_ns = time.monotonic_ns()
        return _Trace(self._traces, parent.settings, now_ns, request.inputs, parent_id=parent.id)

    def _sampler(self, model: str) -> _Sampler:
        return self._samplers.get(model) or self._samplers[""]

    def _begin(self, request: InferRequest, model: str) -> _Trace | None:
        sampler = self._sampler(model)
        if not sampler.takes():
            return None
        if not sampler.left:
            self.active = any(one.active for one in self._samplers.values())
        self._traces += 1
        return _Trace(self._traces, sampler.settings, time.monotonic_ns(), request.inputs)

    def _end(self, trace: _Trace, request: InferRequest, model: ReadyVersion) -> None:
        if self._writer is not None:
            self._writer.put(trace.record(request, model))

    def _apply(self, *, again: str | None) -> None:
        """Sample by the settings as they are now; what is left of a count stays, but for `again`.

        Its count begins anew, and with the server's that of models which have none of their own.
        """
        everybodys, before = self._own.get("", {}), self._samplers
        self._samplers = {}
        for model in ("", *(name for name in self._own if name)):
            own = self._own.get(model, {})
            settings = replace(self._initial, **{**everybodys, **own})
            old = before.get(model) or before[""]
            anew = again == model or (again == "" and "trace_count" not in own)
            keeps = not anew and old.settings.trace_count == settings.trace_count
            left = old.left if keeps else settings.trace_count
            seen = old.seen if old.settings == settings else 0
            self._samplers[model] = _Sampler(settings, left, seen)
        self.active = any(one.active for one in self._samplers.values())
        self.generation += 1

    def _refuse_without_file(self, settings: TraceSettings) -> None:
        if settings.on and self._file is None:
            raise InvalidInput(
                "the server was started without trace_file: there is nothing to trace into"
            )


@dataclass(frozen=True)
class _Steps:
    """Traces the steps of a request as its children."""

    tracing: Tracing
    parent: _Trace

    async def infer(self, request: InferRequest, model: ReadyVersion) -> InferResponse:
        """The one answer of a step."""
        trace = self.tracing._step_of(self.parent, request)
        return await self.tracing._infer(trace, request, model)

    def stream(
        self, request: InferRequest, model: ReadyVersion
    ) -> AsyncGenerator[InferResponse, None]:
        """All answers of a step."""
        trace = self.tracing._step_of(self.parent, request)
        return self.tracing._stream(trace, request, model)


def tracing_of(settings: ServeSettings) -> Tracing:
    """What the server was started with. Raises InvalidInput."""
    return Tracing(
        file=settings.trace_file,
        settings=TraceSettings(
            trace_level=_ordered(settings.trace_level) or (_OFF,),
            trace_rate=settings.trace_rate,
            trace_count=settings.trace_count,
            log_frequency=settings.trace_log_frequency,
        ),
    )


def _ordered(levels: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order of LEVELS; unknown ones are left for TraceSettings to refuse."""
    return (*(one for one in LEVELS if one in levels), *(set(levels) - set(LEVELS)))


def _parsed(name: str, value: Any) -> Any:
    if name == "trace_level":
        if type(value) is not list or not all(type(one) is str for one in value):
            raise Malformed(f"{name} must be a list of texts, received {str(value)[:_SHOWN]!r}")
        return _ordered(value)
    if type(value) is list:
        raise InvalidInput(f"{name} must be one value, received {len(value)}")
    if type(value) is not str or not _WHOLE_NUMBER.fullmatch(value):
        shown = str(value)[:_SHOWN]
        fault = InvalidInput if type(value) is str else Malformed
        raise fault(f"{name} must be a whole number as a text, received {shown!r}")
    return int(value)
