"""The requests that wait for the engine: by priority, then by deadline, each shape apart.

Deadlines are kept to one part in 64 of the time left at arrival. That many requests then share a
place, in order of arrival, and entering, leaving and asking what is ahead cost next to nothing.
"""

import bisect
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from serving.job import Job

# A key is the priority level above so many bits of deadline, enough for 36 years of uptime. Up to
# level 3 it is a number of 62 bits, which compiled code does not keep in an object.
_DEADLINE_BITS: Final = 60
_DEADLINE_MASK: Final = 0xFFF_FFFF_FFFF_FFFF
_PRECISION_BITS: Final = 7


def key_of(*, level: int, due_ns: int, now_ns: int) -> int:
    """The place of a request in the order; smaller goes first."""
    due_ns = max(0, min(due_ns, _DEADLINE_MASK))  # a caller may say that it waits for ever
    shift = max(0, (due_ns - now_ns).bit_length() - _PRECISION_BITS)
    return level << _DEADLINE_BITS | (due_ns >> shift << shift)


def last_key_of(level: int) -> int:
    """The place behind all others of a level."""
    return level << _DEADLINE_BITS | _DEADLINE_MASK


def due_of(key: int) -> int:
    """The earliest deadline of the requests at a place."""
    return key & _DEADLINE_MASK


def level_of(key: int) -> int:
    """The priority level of a place."""
    return key >> _DEADLINE_BITS


@dataclass(slots=True)
class Batch:
    """Requests that run together. A large one may have begun in an earlier batch, or end later.

    `skipped` rows of some requests have been taken before: mostly of none or the first, but one
    that has begun may be overtaken by a more urgent one. `kept` rows of the last are in here.
    """

    jobs: list[Job]
    rows: int
    skipped: dict[Job, int]
    kept: int

    def parts(self) -> Iterator[tuple[Job, int, int]]:
        """Each request with the rows of it that run here."""
        last = len(self.jobs) - 1
        for position, job in enumerate(self.jobs):
            first = self.skipped.get(job, 0)
            yield job, first, first + self.kept if position == last else job.rows

    def without_done(self) -> "Batch":
        """The batch of those whose callers still wait."""
        parts = [part for part in self.parts() if not part[0].done]
        if not parts:
            return Batch([], 0, {}, 0)
        return Batch(
            jobs=[job for job, _, _ in parts],
            rows=sum(end - first for _, first, end in parts),
            skipped={job: first for job, first, _ in parts if first},
            kept=parts[-1][2] - (parts[-1][1]),
        )


class Lane:
    """The waiting requests of one shape, in order."""

    __slots__ = ("_keys", "_places", "_rows", "rows")

    def __init__(self) -> None:
        self._keys: list[int] = []  # sorted
        self._places: dict[int, OrderedDict[Job, None]] = {}
        self._rows: dict[int, int] = {}
        self.rows = 0

    @property
    def first_key(self) -> int:
        """The place of the most urgent request; the lane must not be empty."""
        return self._keys[0]

    @property
    def last_key(self) -> int:
        """The place of the least urgent request; the lane must not be empty."""
        return self._keys[-1]

    def add(self, job: Job, /) -> None:
        """Let a request wait behind those as urgent as itself."""
        place = self._places.get(job.key)
        if place is None:
            place = self._places[job.key] = OrderedDict()
            self._rows[job.key] = 0
            if self._keys and job.key < self._keys[-1]:
                bisect.insort(self._keys, job.key)
            else:
                self._keys.append(job.key)
        place[job] = None
        rows = job.rows - job.rows_taken
        self._rows[job.key] += rows
        self.rows += rows

    def remove(self, job: Job, /) -> bool:
        """Take a request out, wherever it stands; False if it does not wait here."""
        place = self._places.get(job.key)
        if place is None or job not in place:
            return False
        del place[job]
        self._leave(job.key, job.rows - job.rows_taken)
        return True

    def first(self) -> Job:
        """The most urgent request; the lane must not be empty."""
        return next(iter(self._places[self._keys[0]]))

    def rows_before(self, key: int) -> int:
        """How many rows go before a request that would now be added at that place."""
        if not self._keys or key >= self._keys[-1]:
            return self.rows
        ahead = self._keys[: bisect.bisect_right(self._keys, key)]
        return sum(map(self._rows.__getitem__, ahead))

    def places_before(self, key: int) -> tuple[int, int]:
        """How many places go before a request that would now be added at that one; and of how many.

        Cheaper than counting rows, and what is looked at for each request that comes.
        """
        count = len(self._keys)
        if not count or key >= self._keys[-1]:
            return count, count
        return bisect.bisect_right(self._keys, key), count

    def places_after(self, key: int) -> Iterator[tuple[int, int]]:
        """The places behind that one, in order, and the rows at each."""
        for later in self._keys[bisect.bisect_right(self._keys, key) :]:
            yield later, self._rows[later]

    def due_by(self, now_ns: int) -> list[Job]:
        """Whoever stands at a place whose earliest deadline has come, on any priority level."""
        return [job for key in self._keys if due_of(key) <= now_ns for job in self._places[key]]

    def next_due_ns(self, now_ns: int) -> int | None:
        """The earliest deadline of a place that has not come yet."""
        return min((due_of(key) for key in self._keys if due_of(key) > now_ns), default=None)

    def take(self, *, most_rows: int, splits: bool) -> Batch:
        """Take the next batch: at least the first request, or as much of it as fits.

        Where `splits`, a request that does not fit as a whole fills the batch with its first rows.
        """
        jobs: list[Job] = []
        skipped: dict[Job, int] = {}
        rows = kept = 0
        while self._keys and rows < most_rows:
            key = self._keys[0]
            place = self._places[key]
            job = next(iter(place))
            left = job.rows - job.rows_taken
            if left > most_rows - rows:
                if jobs and not splits:
                    break
                kept = most_rows - rows if splits else left
            else:
                kept = left
            if job.rows_taken:
                skipped[job] = job.rows_taken
            jobs.append(job)
            rows += kept
            job.rows_taken += kept
            if kept == left:
                place.popitem(last=False)
            self._leave(key, kept)
        return Batch(jobs=jobs, rows=rows, skipped=skipped, kept=kept)

    def _leave(self, key: int, rows: int) -> None:
        self.rows -= rows
        self._rows[key] -= rows
        if not self._places[key]:
            del self._places[key], self._rows[key]
            del self._keys[bisect.bisect_left(self._keys, key)]


class WaitingRoom:
    """Accepted requests that are not yet with the engine, as a whole or in part.

    Used by one thread only, the event loop's.
    """

    def __init__(self) -> None:
        self.lanes: dict[Any, Lane] = {}
        self.size_bytes = 0
        self.count = 0  # of requests

    def __len__(self) -> int:
        return self.count

    def add(self, job: Job, /) -> None:
        """Let a request wait; its `key` and `shape_key` say where."""
        lane = self.lanes.get(job.shape_key)
        if lane is None:
            lane = self.lanes[job.shape_key] = Lane()
        lane.add(job)
        self.count += 1
        self.size_bytes += job.size_bytes

    def remove(self, job: Job, /) -> bool:
        """Take one request out, wherever it stands; False if it was no longer waiting."""
        lane = self.lanes.get(job.shape_key)
        if lane is None or not lane.remove(job):
            return False
        self._left(job, lane=lane)
        return True

    def next_lane(self) -> Lane:
        """The lane of the most urgent request; the room must not be empty."""
        if len(self.lanes) == 1:
            for lane in self.lanes.values():
                return lane
        return min(self.lanes.values(), key=_first_key_of)

    def place_of(self, key: int) -> float:
        """Where a request would wait: from 0, ahead of all, to 1, behind all; 0 where nobody is."""
        before = of = 0
        for lane in self.lanes.values():
            own_before, own_of = lane.places_before(key)
            before += own_before
            of += own_of
        return before / of if of else 0.0

    def take(self, lane: Lane, *, most_rows: int, splits: bool = True) -> Batch:
        """Take the next batch of a lane."""
        batch = lane.take(most_rows=most_rows, splits=splits)
        for job in batch.jobs:
            if job.rows_taken == job.rows:
                self._left(job, lane=lane)
        return batch

    def _left(self, job: Job, *, lane: Lane) -> None:
        self.count -= 1
        self.size_bytes -= job.size_bytes
        if not lane.rows and self.lanes.get(job.shape_key) is lane:
            del self.lanes[job.shape_key]


def _first_key_of(lane: Lane) -> int:
    return lane.first_key
