"""A request on its way through a batcher, and the outputs of a batch that it takes its share of.

A front end makes a subclass that sends the answer; nothing else stands between it and the batch.
"""

import asyncio
import functools
import operator
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from mypy_extensions import mypyc_attr

from serving.request import Tensors
from serving.statistics import BatchTimes

Buffer = bytes | memoryview
# One input of one request: an array, or its raw bytes (row-major, little-endian), whole or in the
# pieces in which they came. Raw bytes are for tensors whose shape the model fixes.
Payload = np.ndarray | Buffer | list[Buffer]

DEFAULT_PRIORITY = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class BatchOutputs:
    """What the engine gave for a batch of `count` rows; each array has one row per row of it.

    Where a model has no batch axis, `count` is 1, and the arrays are as the model gives them.
    `times` are those of the batch; None where several made them.
    """

    __slots__ = ("_raw", "arrays", "count", "names", "times")

    def __init__(
        self,
        names: Sequence[str],
        arrays: Sequence[np.ndarray],
        *,
        count: int,
        times: BatchTimes | None = None,
    ) -> None:
        self.names = names
        self.arrays = arrays
        self.count = count
        self.times = times
        self._raw: list[bytes] | None = None

    @property
    def raw(self) -> list[bytes]:
        """The arrays as row-major bytes, in the order of `names`; made once."""
        if self._raw is None:
            self._raw = [array.tobytes() for array in self.arrays]
        return self._raw

    def rows(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Views of some rows by name."""
        whole = last - first == self.count
        return {
            name: array if whole else array[first:last]
            for name, array in zip(self.names, self.arrays, strict=True)
        }


# What one of several batches gave for a request: its first row there, and the rows of the outputs.
Part = tuple[int, BatchOutputs, int, int]


class JobArguments(TypedDict):
    """What a job is told of its request."""

    inputs: tuple[Payload | None, ...]
    rows: int
    size_bytes: int
    outputs: tuple[str, ...]
    shape_key: Any
    deadline_ns: int | None
    timeout_ns: int | None
    priority: int


@mypyc_attr(allow_interpreted_subclasses=True)
class Job:
    """One request. Whoever makes it fills in what it asks for; the batcher the rest.

    `inputs` are in the order of the model's, None for an optional one that is not there; `rows` is
    1 for a model without a batch axis.
    `priority` counts from 1, the highest; 0 is the model's default. `deadline_ns` (monotonic) is
    when the caller stops waiting; `timeout_ns` is the wish of its `timeout` parameter, then what
    its queue makes of that.
    """

    __slots__ = (
        "arrived_ns",
        "deadline_ns",
        "done",
        "due_ns",
        "inputs",
        "key",
        "outputs",
        "parts",
        "priority",
        "rows",
        "rows_taken",
        "shape_key",
        "size_bytes",
        "timeout_ns",
    )

    arrived_ns: int  # when it was accepted
    due_ns: int  # when it has to be answered at the latest, by any of its deadlines
    key: int  # its place in the waiting room

    def __init__(
        self,
        inputs: tuple[Payload | None, ...],
        *,
        rows: int,
        size_bytes: int,
        outputs: tuple[str, ...] = (),
        shape_key: Any = None,
        deadline_ns: int | None = None,
        timeout_ns: int | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.size_bytes = size_bytes
        self.outputs = outputs
        self.shape_key = shape_key
        self.deadline_ns = deadline_ns
        self.timeout_ns = timeout_ns
        self.priority = priority
        self.rows_taken = 0  # rows that are with the engine, or were
        self.parts: list[Part] | None = None  # of a request in several batches
        self.done = False  # answered, failed, or given up by its caller

    def answer(self, outputs: BatchOutputs, first: int, last: int) -> None:
        """Take rows first..last of the outputs; called at most once, and never after `fail`."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Take an error instead of an answer; called at most once."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class FutureJob(Job):
    """A request whose caller awaits a future: outputs by name, those it asked for or all.

    With them come the `times` of its batch.
    """

    __slots__ = ("future", "times")

    times: BatchTimes | None

    def __init__(self, arguments: JobArguments, /, *, future: asyncio.Future[Tensors]) -> None:
        super().__init__(
            arguments["inputs"],
            rows=arguments["rows"],
            size_bytes=arguments["size_bytes"],
            outputs=arguments["outputs"],
            shape_key=arguments["shape_key"],
            deadline_ns=arguments["deadline_ns"],
            timeout_ns=arguments["timeout_ns"],
            priority=arguments["priority"],
        )
        self.future = future

    def answer(self, outputs: BatchOutputs, first: int, last: int) -> None:
        """Resolve the future."""
        if self.future.done():
            return
        self.times = outputs.times
        rows = outputs.rows(first, last)
        if self.outputs:
            rows = {name: rows[name] for name in self.outputs}
        self.future.set_result(rows)

    def fail(self, error: Exception) -> None:
        """Let the future raise."""
        if not self.future.done():
            self.future.set_exception(error)


def collected(job: Job, part: Part, *, names: Sequence[str]) -> BatchOutputs | None:
    """The outputs of a request that ran in parts, once all of them are there; else None.

    `names` are those of all outputs of the model.
    """
    parts = job.parts = [*(job.parts or ()), part]
    if sum(end - begin for _, _, begin, end in parts) < job.rows:
        return None
    parts.sort(key=lambda part: part[0])  # several instances may end in any order
    pieces = [outputs.rows(begin, end) for _, outputs, begin, end in parts]
    wanted = job.outputs or names
    arrays = [np.concatenate([piece[name] for piece in pieces]) for name in wanted]
    times = functools.reduce(operator.add, (part.times for _, part, _, _ in parts if part.times))
    return BatchOutputs(wanted, arrays, count=job.rows, times=times)
