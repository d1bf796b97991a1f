"""Who is let in: a request whose answer is expected in time, and that makes no other one late.

The expectation is that of a queue ordered by deadline (earliest deadline first, Liu and Layland
1973): what is ahead of the request, in batches of the best size, after the batch that is running,
and what more urgent ones will come. It is multiplied by a factor that learns from lateness, so that
noise of any origin is paid for.
"""

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from serving.job import Job
from serving.pace import Pace
from serving.service_time import BATCH_COST_NS, ServiceTime
from serving.urgency import Urgency
from serving.waiting import Batch, Lane, WaitingRoom, due_of

_NS_PER_S: Final = 1_000_000_000
_MAX_SHAPES: Final = 256  # whose times are remembered
_LEAST_CAUTION: Final = 1.05
_MOST_CAUTION: Final = 3.0
# For sizes of batches. It does not learn: smaller batches make more requests late, not fewer.
_BATCH_CAUTION: Final = 1.25
_CAUTION_UP: Final = 0.02
_CAUTION_DOWN: Final = 0.0001  # in balance where one in 200 is late
_PROBE_TIMES: Final = 50  # an idle engine tries a hopeless request after so many times its time
_REPLY_NS: Final = 5_000_000  # kept for what the server cannot see: the way to it and back
_OVERDUE_SHARE: Final = 8  # a batch that runs late is expected to need this part of its time so far


class Verdict(NamedTuple):
    """Why a request is refused: the time it would need, and when to try again.

    `hopeless`: not even an idle engine could answer it in time. `place`: where it would wait, from
    0, ahead of all, to 1; 0 where nobody waits.
    """

    needed_ns: int
    retry_after_ns: int
    hopeless: bool
    place: float


class Admission:
    """Judges the requests of one model by what waits in `room` and what is with the engine."""

    def __init__(
        self,
        room: WaitingRoom,
        *,
        max_rows: int,
        instances: int,
        service_time: ServiceTime | None = None,
        ordered_by_deadline: bool = True,
    ) -> None:
        self._room = room
        self._max_rows = max_rows
        self._instances = instances
        self._ordered_by_deadline = ordered_by_deadline
        self._times: OrderedDict[Any, ServiceTime] = OrderedDict()
        if service_time is not None:
            self._times[None] = service_time
        self.engine_free_ns = 0  # when the next instance is expected to be free, 0 for one that is
        self._last_start_ns = 0
        self.pace = Pace(instances=instances)
        self.urgency = Urgency()
        self.caution = _LEAST_CAUTION

    @property
    def turn_ns(self) -> int:
        """The time of a batch of the best size, of the shape that was last run."""
        if not self._times:
            return 0
        times = next(reversed(self._times.values()))
        return times.predict_ns(times.best_rows)

    @property
    def best_rows(self) -> int:
        """The size of a full batch, of the shape that was last run."""
        if not self._times:
            return self._max_rows
        return next(reversed(self._times.values())).best_rows

    @property
    def rows_per_s(self) -> float:
        """What the engine can do at best, in the shape that was last run; 0 while unknown."""
        if not self._times:
            return 0.0
        row_ns = next(reversed(self._times.values())).row_ns
        return self._instances * _NS_PER_S / row_ns if row_ns else 0.0

    def service_time(self, shape_key: Any) -> ServiceTime:
        """What is known of batches of a shape."""
        times = self._times.get(shape_key)
        if times is None:
            times = ServiceTime(self._max_rows, batch_cost_ns=BATCH_COST_NS)
            self._times[shape_key] = times
            if len(self._times) > _MAX_SHAPES:
                self._times.popitem(last=False)
        return times

    def judge(self, job: Job, *, now_ns: int) -> Verdict | None:
        """None for a request to be let in."""
        times = self.service_time(job.shape_key)
        left_ns = job.due_ns - now_ns
        alone_ns = times.predict_ns(min(job.rows, self._max_rows))
        self.urgency.came(left_ns=left_ns, alone_ns=alone_ns, now_ns=now_ns)
        place = self._room.place_of(job.key)
        if self._room.count:
            self.urgency.stands(place, rows=job.rows)
        if self._has_time_for_all(job, times, place=place, now_ns=now_ns):
            return None
        left_ns -= min(_REPLY_NS, left_ns >> 4)
        own_rows, others_ns = self._ahead(job)
        needed_ns = self._until_free(now_ns) + self._drain_ns(own_rows, others_ns, job, times)
        ahead_ns = (others_ns + own_rows * times.row_ns) * self.pace.factor / self._instances
        later_ns = self.urgency.overtaken_ns(ahead_ns, place=place)
        cautious_ns = int((needed_ns + later_ns) * self.caution)
        if cautious_ns > left_ns:
            hopeless = alone_ns > left_ns
            if hopeless and self._may_try(job, alone_ns, now_ns=now_ns):
                return None
            hopeless = hopeless and job.deadline_ns is not None
            needed_ns = alone_ns if hopeless else needed_ns
            return Verdict(needed_ns, cautious_ns - left_ns, hopeless, place)
        if self._ordered_by_deadline:
            late_ns = self._most_late_behind(job, needed_ns=needed_ns, now_ns=now_ns)
            if late_ns > 0:
                return Verdict(needed_ns, int(late_ns), hopeless=False, place=place)
        return None

    def most_rows(self, lane: Lane, first: Job, *, now_ns: int) -> int:
        """How large a batch may be for its most urgent request to be in time.

        One that will be late anyway, or whose patience has ended, does not keep the others waiting.
        """
        times = self.service_time(first.shape_key)
        if lane.rows <= 1:
            return 1
        left_ns, least_ns = first.due_ns - now_ns, times.predict_ns(1)
        if left_ns < least_ns * _LEAST_CAUTION:
            return times.best_rows
        return times.most_rows_within(max(int(left_ns / _BATCH_CAUTION), least_ns))

    def expect(self, batch: Batch, *, begin_ns: int) -> int:
        """When a batch that starts then is expected to end."""
        self._last_start_ns = begin_ns
        return begin_ns + self.service_time(batch.jobs[0].shape_key).predict_ns(batch.rows)

    def learn(self, batch: Batch, *, took_ns: int, now_ns: int, backlog: bool) -> None:
        """Take note of a batch that has ended; `backlog`: the next need not wait for requests."""
        key = batch.jobs[0].shape_key
        times = self.service_time(key)
        expected_ns = times.predict_ns(batch.rows)
        self.pace.batch_ended(now_ns=now_ns, expected_ns=expected_ns, backlog=backlog)
        if self._ordered_by_deadline:
            times.limit_ns = self.urgency.batch_ns
        times.observe(rows=batch.rows, took_ns=took_ns)
        self._times.move_to_end(key)

    def finished(self, job: Job, *, now_ns: int) -> None:
        """Become more cautious for each request that was let in and is late, less for others."""
        if job.deadline_ns is None:
            return
        if now_ns + _REPLY_NS // 2 > job.due_ns:
            self.caution = min(_MOST_CAUTION, self.caution + _CAUTION_UP)
        else:
            self.caution = max(_LEAST_CAUTION, self.caution - _CAUTION_DOWN)

    def _has_time_for_all(self, job: Job, times: ServiceTime, *, place: float, now_ns: int) -> bool:
        """Whether a request, and all that waits, is done before even the first of it is due.

        Mostly it is so, and easy to see.
        """
        lanes, first_due_ns, later_ns = self._room.lanes, job.due_ns, 0.0
        if not lanes:
            work_ns = float(times.drain_ns(job.rows))
        elif len(lanes) == 1 and job.shape_key in lanes and self._ordered_by_deadline:
            lane = lanes[job.shape_key]
            rows_ns = (lane.rows + job.rows) * times.row_ns
            work_ns = (times.best_ns + rows_ns) * self.pace.factor
            later_ns = self.urgency.overtaken_ns(rows_ns * self.pace.factor, place=place)
            first_due_ns = min(first_due_ns, due_of(lane.first_key))
        else:
            return False
        needed_ns = self._until_free(now_ns) + work_ns
        if now_ns + self.caution * needed_ns > first_due_ns:
            return False
        return now_ns + self.caution * (needed_ns + later_ns) <= job.due_ns

    def _until_free(self, now_ns: int) -> int:
        if not self.engine_free_ns:
            return 0
        left_ns = self.engine_free_ns - now_ns
        if left_ns > 0:
            return left_ns
        return max(0, now_ns - self._last_start_ns) // _OVERDUE_SHARE

    def _ahead(self, job: Job) -> tuple[int, int]:
        """What waits ahead of a request: rows of its shape, and the time of those of others."""
        own_rows = others_ns = 0
        for shape_key, lane in self._room.lanes.items():
            rows = lane.rows_before(job.key)
            if shape_key == job.shape_key:
                own_rows = rows
            else:
                others_ns += self.service_time(shape_key).drain_ns(rows)
        return own_rows, others_ns

    def _drain_ns(self, own_rows: int, others_ns: int, job: Job, times: ServiceTime) -> int:
        """The time for so much that is ahead of a request, and for itself."""
        rows = own_rows + job.rows
        if not self._room.lanes:  # no backlog
            together_ns = times.drain_ns(rows)
        else:
            if rows > times.best_rows:  # who waits behind fills the last batch
                rows = -(-rows // times.best_rows) * times.best_rows
            together_ns = int((others_ns + times.drain_ns(rows)) * self.pace.factor)
        if self._instances == 1:
            return together_ns
        # Instances share work; a batch is not shared.
        return max(together_ns // self._instances, times.predict_ns(min(job.rows, self._max_rows)))

    def _most_late_behind(self, job: Job, *, needed_ns: int, now_ns: int) -> float:
        """By how much the request would make one behind it late; 0 or less where it makes none."""
        behind = [
            (key, rows * self.service_time(shape_key).row_ns * self.pace.factor)
            for shape_key, lane in self._room.lanes.items()
            if lane.last_key > job.key
            for key, rows in lane.places_after(job.key)
        ]
        if not behind:
            return 0
        if len(self._room.lanes) > 1:
            behind.sort()
        late_ns, sum_ns = 0.0, float(needed_ns)
        for key, own_ns in behind:
            sum_ns += own_ns / self._instances
            late_ns = max(late_ns, sum_ns * self.caution - (due_of(key) - now_ns))
        return late_ns

    def _may_try(self, job: Job, alone_ns: int, *, now_ns: int) -> bool:
        """Whether to run a hopeless request all the same, on an idle engine.

        What is never run is never found to have become faster; and patience is no deadline: who
        gave none is not refused because a model is slow.
        """
        if self.engine_free_ns or self._room.count:
            return False
        if job.deadline_ns is None:
            return True
        return now_ns - self._last_start_ns > _PROBE_TIMES * alone_ns
