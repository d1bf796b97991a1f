"""What travels between a protocol and a batcher: one inference request and its response."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request, its tensors decoded, in the order in which the client sent them.

    An empty `model_version` asks for the newest; empty `outputs` ask for all. `deadline_ns` is on
    the monotonic clock (time.monotonic_ns); None where the client gave none. `priority` (0: the
    model's default, 1: the highest) and `timeout_ns` (None: the model's) are those of Triton's
    schedule policy.
    """

    model_name: str
    inputs: Tensors
    model_version: str = ""
    id: str = ""
    outputs: tuple[str, ...] = ()
    deadline_ns: int | None = None
    priority: int = 0
    timeout_ns: int | None = None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The answer to one request: its outputs in the order asked for, else in the model's order."""

    model_name: str
    model_version: str
    outputs: Tensors
    id: str = field(default="")
