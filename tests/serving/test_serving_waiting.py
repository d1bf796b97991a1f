"""The waiting room beside a plain sorted list: order, rows, bytes, and that nothing is lost."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.job import Job
from serving.waiting import Batch, Lane, WaitingRoom, due_of, key_of, last_key_of, level_of


def _job(*, rows: int = 1, key: int = 0, shape: str | None = None, size_bytes: int = 1) -> Job:
    job = Job((), rows=rows, size_bytes=size_bytes, shape_key=shape)
    job.key = key
    return job


def _lane(*jobs: Job) -> Lane:
    lane = Lane()
    for job in jobs:
        lane.add(job)
    return lane


def _taken(batch: Batch) -> list[tuple[Job, int, int]]:
    return list(batch.parts())


@given(st.integers(0, 2**59), st.integers(-(10**12), 10**12), st.integers(0, 9), st.integers(0, 9))
def test_a_place_keeps_a_deadline_to_one_part_in_64_of_the_time_left(now_ns, left_ns, level, lower):
    due_ns = max(0, now_ns + left_ns)
    key = key_of(level=level, due_ns=due_ns, now_ns=now_ns)

    assert level_of(key) == level
    assert 0 <= due_ns - due_of(key) <= abs(due_ns - now_ns) / 64
    assert key <= last_key_of(level)
    if lower > level:
        assert key < key_of(level=lower, due_ns=0, now_ns=now_ns)
        assert last_key_of(level) < key_of(level=lower, due_ns=0, now_ns=now_ns)


@pytest.mark.parametrize("due_ns", [2**64, 10**30, -1])
def test_a_deadline_beyond_all_clocks_does_not_change_the_level(due_ns):
    key = key_of(level=3, due_ns=due_ns, now_ns=10**18)

    assert level_of(key) == 3
    assert 0 <= due_of(key) < 2**60


def test_a_place_by_hand():
    # 1000 ns are left: 10 bits, of which 7 are kept, so in steps of 8 ns.
    assert due_of(key_of(level=1, due_ns=5_007, now_ns=4_007)) == 5_000
    assert due_of(key_of(level=1, due_ns=5_000, now_ns=4_000)) == 5_000
    # Up to 127 ns nothing is rounded.
    assert due_of(key_of(level=1, due_ns=5_007, now_ns=4_880)) == 5_007


@pytest.mark.parametrize(("key", "place"), [(1, 0.0), (10, 0.25), (35, 0.75), (40, 1.0), (99, 1.0)])
def test_where_a_request_would_stand_counts_places_of_all_shapes(key, place):
    room = WaitingRoom()
    assert room.place_of(key) == 0
    for own, shape in ((10, None), (10, None), (20, "a"), (30, "a"), (40, "b")):
        room.add(_job(key=own, shape=shape))

    assert room.place_of(key) == place


def test_the_smallest_place_goes_first_and_equals_in_the_order_of_arrival():
    jobs = [_job(key=key) for key in (5, 3, 5, 1, 3)]
    lane = _lane(*jobs)

    batch = lane.take(most_rows=8, splits=True)

    assert batch.jobs == [jobs[3], jobs[1], jobs[4], jobs[0], jobs[2]]
    assert (batch.rows, batch.skipped, batch.kept, lane.rows) == (5, {}, 1, 0)


def test_a_request_that_does_not_fit_fills_the_batch_and_goes_on_in_the_next():
    first, second = _job(rows=2), _job(rows=9)
    lane = _lane(first, second)

    assert _taken(lane.take(most_rows=4, splits=True)) == [(first, 0, 2), (second, 0, 2)]
    assert lane.first() is second
    assert _taken(lane.take(most_rows=4, splits=True)) == [(second, 2, 6)]
    last = _job(rows=3)
    lane.add(last)
    assert _taken(lane.take(most_rows=4, splits=True)) == [(second, 6, 9), (last, 0, 1)]
    assert _taken(lane.take(most_rows=4, splits=True)) == [(last, 1, 3)]
    assert lane.rows == 0


def test_without_splits_a_request_waits_for_a_batch_that_holds_it():
    first, second, large = _job(rows=2), _job(rows=3), _job(rows=9)
    lane = _lane(first, second, large)

    assert lane.take(most_rows=4, splits=False).jobs == [first]
    assert lane.take(most_rows=4, splits=False).jobs == [second]
    assert _taken(lane.take(most_rows=4, splits=False)) == [(large, 0, 9)]


def test_more_urgent_requests_overtake_one_that_has_begun():
    large, urgent = _job(rows=6, key=5), _job(rows=1, key=2)
    lane = _lane(large)
    lane.take(most_rows=4, splits=True)
    lane.add(urgent)

    assert _taken(lane.take(most_rows=4, splits=True)) == [(urgent, 0, 1), (large, 4, 6)]


def test_those_whose_time_has_come_are_found_on_every_level():
    jobs = [_job(key=key_of(level=level, due_ns=due, now_ns=due)) for level, due in
            ((1, 30), (1, 10), (2, 20), (2, 40))]  # fmt: skip
    lane = _lane(*jobs)

    assert lane.due_by(20) == [jobs[1], jobs[2]]
    assert lane.next_due_ns(20) == 30
    assert lane.next_due_ns(40) is None


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ((), [(0, 3, 5), (1, 0, 2), (2, 0, 1)]),
        ((0,), [(1, 0, 2), (2, 0, 1)]),
        ((1,), [(0, 3, 5), (2, 0, 1)]),
        ((2,), [(0, 3, 5), (1, 0, 2)]),
        ((0, 1), [(2, 0, 1)]),
        ((1, 2), [(0, 3, 5)]),
        ((0, 1, 2), []),
    ],
)
def test_a_batch_without_those_that_have_gone_keeps_the_parts_of_the_others(done, left):
    jobs = [_job(rows=5), _job(rows=2), _job(rows=4)]
    batch = Batch(jobs, rows=5, skipped={jobs[0]: 3}, kept=1)
    for number in done:
        jobs[number].done = True

    rest = batch.without_done()

    assert _taken(rest) == [(jobs[number], first, last) for number, first, last in left]
    assert rest.rows == sum(last - first for _, first, last in left)


class LaneBesideAList(RuleBasedStateMachine):
    """A room of several shapes does what a list does that is sorted and searched from the start."""

    @initialize()
    def start(self) -> None:
        self.room = WaitingRoom()
        self.expected: list[Job] = []  # in the order of arrival
        self.gone: list[Job] = []

    def _sorted(self, shape: str) -> list[Job]:
        jobs = [job for job in self.expected if job.shape_key == shape]
        return sorted(jobs, key=lambda job: job.key)  # stable

    @rule(
        rows=st.integers(1, 5),
        key=st.integers(0, 6),
        shape=st.sampled_from("ab"),
        size_bytes=st.integers(0, 9),
    )
    def arrive(self, rows: int, key: int, shape: str, size_bytes: int) -> None:
        job = _job(rows=rows, key=key, shape=shape, size_bytes=size_bytes)
        self.room.add(job)
        self.expected.append(job)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.expected))
        assert self.room.remove(job)
        self.expected.remove(job)
        self.gone.append(job)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        assert not self.room.remove(data.draw(st.sampled_from(self.gone)))

    @precondition(lambda self: self.expected)
    @rule(most_rows=st.integers(1, 8), splits=st.booleans())
    def take(self, most_rows: int, splits: bool) -> None:
        first_key = min(job.key for job in self.expected)
        lane = self.room.next_lane()
        assert lane.first_key == first_key
        shape = lane.first().shape_key
        wanted: list[tuple[Job, int, int]] = []
        free = most_rows
        for job in self._sorted(shape):
            left = job.rows - job.rows_taken
            if not free or (wanted and not splits and left > free):
                break
            now = min(left, free) if splits else left
            wanted.append((job, job.rows_taken, job.rows_taken + now))
            free = max(0, free - now)

        batch = self.room.take(lane, most_rows=most_rows, splits=splits)

        assert _taken(batch) == wanted
        assert batch.rows == sum(last - first for _, first, last in wanted)
        for job, _, last in wanted:
            assert job.rows_taken == last
            if last == job.rows:
                self.expected.remove(job)
                self.gone.append(job)

    @invariant()
    def counts_rows_and_bytes_add_up(self) -> None:
        assert len(self.room) == self.room.count == len(self.expected)
        assert self.room.size_bytes == sum(job.size_bytes for job in self.expected)
        assert self.room.lanes.keys() == {job.shape_key for job in self.expected}

    @invariant()
    def what_is_ahead_and_behind_is_known(self) -> None:
        for shape, lane in self.room.lanes.items():
            jobs = self._sorted(shape)
            left = {job: job.rows - job.rows_taken for job in jobs}
            assert lane.rows == sum(left.values())
            assert lane.first() is jobs[0]
            assert (lane.first_key, lane.last_key) == (jobs[0].key, jobs[-1].key)
            for key in range(-1, 8):
                ahead = [job for job in jobs if job.key <= key]
                assert lane.rows_before(key) == sum(left[job] for job in ahead)
                behind: dict[int, int] = {}
                for job in jobs[len(ahead) :]:
                    behind[job.key] = behind.get(job.key, 0) + left[job]
                assert list(lane.places_after(key)) == list(behind.items())


LaneBesideAList.TestCase.settings = settings(max_examples=100, deadline=None)
test_the_room_does_what_a_list_does = LaneBesideAList.TestCase


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.sampled_from("ab")), max_size=20),
    st.integers(1, 6),
)
@settings(max_examples=50, deadline=None)
def test_every_row_is_taken_exactly_once(arrivals, most_rows):
    room = WaitingRoom()
    jobs = [_job(rows=rows, key=key, shape=shape) for rows, key, shape in arrivals]
    for job in jobs:
        room.add(job)

    taken: dict[Job, list[int]] = {job: [] for job in jobs}
    batches = 0
    while room.count:
        batch = room.take(room.next_lane(), most_rows=most_rows)
        assert 1 <= batch.rows <= most_rows
        assert len({job.shape_key for job in batch.jobs}) == 1
        for job, first, last in batch.parts():
            taken[job] += range(first, last)
        batches += 1

    assert all(rows == list(range(job.rows)) for job, rows in taken.items())
    per_shape = (sum(j.rows for j in jobs if j.shape_key == shape) for shape in "ab")
    if len({job.key for job in jobs}) <= 1:
        assert batches == sum(math.ceil(rows / most_rows) for rows in per_shape)
