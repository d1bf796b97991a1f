"""Requests that come alone: each is run by the event loop, as soon as it is read, past the queue.

Between two of them the processor forgets: caches, and what it learned of branches, are cold. What
counts then is how little code and memory is touched until the answer has left.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from mypy_extensions import mypyc_attr

from serving.job import BatchOutputs
from serving.policy import BatchPolicy

logger = logging.getLogger(__name__)

_LEAST_TIMES: Final = 8  # the expected time: a tighter deadline is judged before the run
_MOST_SIZES: Final = 64  # for which memory is kept
_MOST_FAILURES: Final = 8  # in a row: fewer are taken to be the requests' own fault
_NEVER: Final = 1 << 60


class Bound(Protocol):
    """A batch whose tensors stay where they are in memory; see `BoundRun`."""

    @property
    def places(self) -> Sequence[memoryview]:
        """Where the row-major bytes of each input are written to."""

    def run(self) -> list[np.ndarray]:
        """All outputs, in their order; the next run writes to the same arrays."""


Bind = Callable[[int], Bound | None]


@mypyc_attr(allow_interpreted_subclasses=True)
class LoneRuns:
    """Runs raw requests of one model, in memory of their own; `bind` gives it for so many rows.

    `begun_ns` and `written_ns` are when the last one began and had its inputs, by `clock`.
    """

    def __init__(
        self,
        bind: Bind | None,
        *,
        policy: BatchPolicy,
        names: Sequence[str],
        clock: Callable[[], int],
    ) -> None:
        waits = policy.delay_ns or policy.preferred_rows
        self._bind = None if waits else bind
        self._names = names
        self._clock = clock
        limits_ns = [policy.budget_ns, *(queue.timeout_ns for queue in policy.queues)]
        self._limit_ns = min((limit_ns for limit_ns in limits_ns if limit_ns), default=_NEVER)
        self._bound: dict[int, Bound | None] = {}
        self._failures = 0  # in a row
        self.begun_ns = self.written_ns = 0

    def outputs(
        self, payloads: Sequence[Any], *, rows: int, expected_ns: int, timeout_ns: int | None
    ) -> BatchOutputs | None:
        """The outputs for raw payloads, valid until the next run.

        None for a request that has to go the usual way: where a deadline of its own or of its model
        is so tight that it has to be judged, where the engine has no memory for it, and where it
        fails, since the usual way tells its caller. After eight failures in a row, no other of that
        size is run.
        """
        limit_ns = self._limit_ns if timeout_ns is None else min(timeout_ns, self._limit_ns)
        if self._bind is None or limit_ns < _LEAST_TIMES * expected_ns:
            return None
        bound = None
        try:
            bound = self._bound[rows] if rows in self._bound else self._new(self._bind, rows)
            if bound is None:
                return None
            self.begun_ns = self._clock()
            for place, payload in zip(bound.places, payloads, strict=True):
                _write(place, payload)
            self.written_ns = self._clock()
            arrays = bound.run()
        except Exception:
            self._failures += 1
            if bound is None or self._failures == _MOST_FAILURES:
                logger.exception("requests of %d rows are no longer run alone", rows)
                self._bound[rows] = None
                self._failures = 0
            return None
        self._failures = 0
        return BatchOutputs(self._names, arrays, count=rows)

    def _new(self, bind: Bind, rows: int) -> Bound | None:
        if len(self._bound) >= _MOST_SIZES:
            self._bound.clear()
        bound = self._bound[rows] = bind(rows)
        return bound


def _write(place: Any, payload: Any) -> None:
    """Copy a raw payload, whole or in pieces, to its place in memory."""
    if type(payload) is not list:
        place[:] = payload
        return
    begin = 0
    for piece in payload:
        place[begin : begin + len(piece)] = piece
        begin += len(piece)
