"""What is seen of one request on its way through the server, when it is traced."""

import time
from dataclasses import dataclass, field

import numpy as np

from serving.request import InferRequest, InferResponse, Tensors
from serving.trace_file import Timestamp, TracedTensor, TraceRecord
from serving.trace_settings import TENSORS, TIMESTAMPS, TraceSettings
from serving.version import ReadyVersion

_MAX_TENSOR_BYTES = 64 * 1024 * 1024  # of one request; what comes after is left out
_MAX_ANSWERS = 1024  # of one request, whose times are told


@dataclass
class Trace:
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
        """Copy tensors, where they are asked for and there is room."""
        if TENSORS not in self.settings.trace_level:
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
        if TIMESTAMPS in self.settings.trace_level:
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
