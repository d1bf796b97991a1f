"""What travels between a protocol and a batcher: one inference request and its response."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from serving.statistics import BatchTimes

Tensors = Mapping[str, np.ndarray]
Parameter = bool | int | float | str  # what a parameter of the protocol may be
# Parameters that the server acts on; all others are the model's.
_OF_THE_SERVER = frozenset(
    ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output")
)
_RESERVED_PREFIX = "triton_"


class StepTracer(Protocol):
    """Runs the steps of a traced request; `model` is the ReadyVersion of one."""

    async def infer(self, request: "InferRequest", model: Any) -> "InferResponse":
        """The one answer of a step."""

    def stream(self, request: "InferRequest", model: Any) -> AsyncGenerator["InferResponse", None]:
        """All answers of a step."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request, its tensors decoded, in the order in which the client sent them.

    An empty `model_version` asks for the newest; empty `outputs` ask for all. `deadline_ns` is on
    the monotonic clock (time.monotonic_ns); None where the client gave none. `priority` (0: the
    model's default, 1: the highest) and `timeout_ns` (None: the model's) are those of Triton's
    schedule policy. `parameters` are all that the client gave, those included. `tracer` is there
    where the request is traced.
    """

    model_name: str
    inputs: Tensors
    model_version: str = ""
    id: str = ""
    outputs: tuple[str, ...] = ()
    deadline_ns: int | None = None
    priority: int = 0
    timeout_ns: int | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    tracer: StepTracer | None = None

    @property
    def custom_parameters(self) -> dict[str, Parameter]:
        """The parameters that are the model's: all but those that the server acts on."""
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in _OF_THE_SERVER and not name.startswith(_RESERVED_PREFIX)
        }


@dataclass(frozen=True, slots=True)
class InferResponse:
    """An answer to one request: its outputs in the order asked for, else in the model's order.

    `times` are those of the batch that it comes from, where one batch made it; `queued_ns` is when
    (monotonic) its request was accepted by the batcher.
    A model that may give any number of answers can say of one that it is the `final` one; where it
    says so of none, the end of the answers tells it.
    """

    model_name: str
    model_version: str
    outputs: Tensors
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    times: BatchTimes | None = None
    queued_ns: int | None = None
    final: bool = False
