"""The requests that wait for the engine, grouped by shape: only equal shapes share a batch."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from serving.request import Tensors


@dataclass(slots=True, eq=False)
class Waiting:
    """One accepted request: its tensors, its caller's future, and when it arrived (monotonic)."""

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    shape_key: Any
    future: asyncio.Future[Tensors]
    arrived_ns: int
    deadline_ns: int | None


class WaitingRoom:
    """Accepted requests in order of arrival; leaving from anywhere costs the same.

    Used by one thread only, the event loop's.
    """

    def __init__(self) -> None:
        self._by_shape: dict[Any, OrderedDict[int, Waiting]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting, /) -> None:
        """Let a request wait behind those of the same shape."""
        self._by_shape.setdefault(waiting.shape_key, OrderedDict())[id(waiting)] = waiting
        self._count += 1

    def remove(self, waiting: Waiting, /) -> bool:
        """Take one request out, wherever it stands; False if it was no longer waiting."""
        group = self._by_shape.get(waiting.shape_key)
        if group is None or group.pop(id(waiting), None) is None:
            return False
        if not group:
            del self._by_shape[waiting.shape_key]
        self._count -= 1
        return True

    def take(self, *, max_rows: int) -> list[Waiting]:
        """Take the next batch: the oldest request and those after it of its shape that fit.

        A request is never split; the first always goes, so that none waits for ever.
        """
        if not self._count:
            return []
        oldest = min(
            self._by_shape.values(), key=lambda group: next(iter(group.values())).arrived_ns
        )
        batch: list[Waiting] = []
        rows = 0
        for waiting in oldest.values():
            if batch and rows + waiting.rows > max_rows:
                break
            batch.append(waiting)
            rows += waiting.rows
        for waiting in batch:
            self.remove(waiting)
        return batch
