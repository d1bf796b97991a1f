"""Traces of requests, as clients ask for them while the server runs: Triton's trace extension.

While nothing is traced, a request pays for one look at `Tracing.active`.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, Unsupported
from serving.request import InferRequest, InferResponse
from serving.settings import ServeSettings
from serving.trace import Trace
from serving.trace_file import TraceWriter
from serving.trace_settings import OFF, TraceSettings, TraceValue, ordered, parsed
from serving.version import ReadyVersion


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
                own[name] = parsed(name, changes[name])
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
        self, trace: Trace, request: InferRequest, model: ReadyVersion
    ) -> InferResponse:
        request = replace(request, tracer=_Steps(self, trace))
        try:
            response = await model.scheduler.infer(request)
            trace.answered(response)
        finally:
            self._end(trace, request, model)
        return response

    async def _stream(
        self, trace: Trace, request: InferRequest, model: ReadyVersion
    ) -> AsyncGenerator[InferResponse, None]:
        request = replace(request, tracer=_Steps(self, trace))
        try:
            async with contextlib.aclosing(model.scheduler.stream(request)) as responses:
                async for response in responses:
                    trace.answered(response)
                    yield response
        finally:
            self._end(trace, request, model)

    def _step_of(self, parent: Trace, request: InferRequest) -> Trace:
        """The trace of a step: it is there where that of the whole is, and counts with it."""
        self._traces += 1
        now_ns = time.monotonic_ns()
        return Trace(self._traces, parent.settings, now_ns, request.inputs, parent_id=parent.id)

    def _sampler(self, model: str) -> _Sampler:
        return self._samplers.get(model) or self._samplers[""]

    def _begin(self, request: InferRequest, model: str) -> Trace | None:
        sampler = self._sampler(model)
        if not sampler.takes():
            return None
        if not sampler.left:
            self.active = any(one.active for one in self._samplers.values())
        self._traces += 1
        return Trace(self._traces, sampler.settings, time.monotonic_ns(), request.inputs)

    def _end(self, trace: Trace, request: InferRequest, model: ReadyVersion) -> None:
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
    parent: Trace

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
            trace_level=ordered(settings.trace_level) or (OFF,),
            trace_rate=settings.trace_rate,
            trace_count=settings.trace_count,
            log_frequency=settings.trace_log_frequency,
        ),
    )
