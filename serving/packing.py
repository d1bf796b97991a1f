"""From the requests of a batch to the engine's inputs: one copy, one behind the other."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ridgeline.datatypes import datatype
from ridgeline.model import ModelSpec, TensorSpec
from serving.job import Job, Payload
from serving.waiting import Batch

_TEXT = datatype("BYTES").numpy


class Packer:
    """Packs batches of one model."""

    def __init__(self, spec: ModelSpec) -> None:
        self._batches = spec.batches
        self._tensors = tuple(_Input(tensor) for tensor in spec.inputs)

    def pack(self, batch: Batch) -> dict[str, np.ndarray]:
        """The inputs of all requests by name, along the batch axis.

        Raw bytes are copied also where the batch is one request: they may begin anywhere in what
        was read, and kernels want their tensors aligned.
        """
        parts = None
        if batch.skipped or batch.kept != batch.jobs[-1].rows:
            parts = list(batch.parts())
        inputs = {}
        for index, tensor in enumerate(self._tensors):
            if batch.jobs[0].inputs[index] is None:  # and so it is for all of them
                continue
            if parts is None:
                payloads = [cast(Payload, job.inputs[index]) for job in batch.jobs]
            else:
                payloads = [tensor.part(job, index, first, last) for job, first, last in parts]
            inputs[tensor.name] = tensor.packed(payloads, rows=batch.rows if self._batches else 0)
        return inputs


class _Input:
    """One input of a model, without its batch axis."""

    def __init__(self, tensor: TensorSpec) -> None:
        self.name = tensor.name
        self._dtype = datatype(tensor.datatype).numpy
        self._shape = tensor.shape

    def packed(self, payloads: Sequence[Payload], *, rows: int) -> np.ndarray:
        """One array of `rows` rows, or, where that is 0, of one payload without a batch axis."""
        shape: tuple[int, ...] = self._shape
        first = payloads[0]
        if isinstance(first, np.ndarray):
            if len(payloads) == 1:
                return first
            if self._dtype == _TEXT:
                return np.concatenate([np.asarray(payload) for payload in payloads])
            shape = first.shape[1:]
        array = np.frombuffer(_joined(payloads), dtype=self._dtype)
        return array.reshape((rows, *shape) if rows else shape)

    def part(self, job: Job, index: int, first: int, last: int) -> Payload:
        """Some rows of a request's input."""
        payload = cast(Payload, job.inputs[index])
        if first == 0 and last == job.rows:
            return payload
        if isinstance(payload, np.ndarray):
            return payload[first:last]
        whole = memoryview(_joined([payload]))
        row_bytes = len(whole) // job.rows
        return whole[first * row_bytes : last * row_bytes]


def _joined(payloads: Sequence[Payload]) -> bytes:
    """The bytes of all payloads, copied once."""
    pieces: list[Any] = []
    for payload in payloads:
        if type(payload) is list:
            pieces += payload
        else:
            pieces.append(payload)
    return b"".join(pieces)
