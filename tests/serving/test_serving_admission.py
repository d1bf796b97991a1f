"""Admission by hand: what is expected, whom a request would make late, how caution learns.

Times are milliseconds; caution is 5 % until somebody was late.
"""

import pytest

from serving.admission import Admission, Verdict
from serving.job import Job
from serving.waiting import WaitingRoom, key_of

MS = 1_000_000
NOW_NS = 10**15


@pytest.fixture
def make(calibrated):
    """Builds an admission, and its empty room; a batch of any size takes 100 ms."""

    def make(*, time_ns=lambda _: 100 * MS, instances=1, known=True, **options):
        room = WaitingRoom()
        times = calibrated(time_ns) if known else None
        admission = Admission(room, max_rows=8, instances=instances, service_time=times, **options)
        return admission, room

    return make


def _job(left_ms: float, *, rows: int = 1, shape=None, level: int = 1, deadline: bool = True):
    job = Job((), rows=rows, size_bytes=0, shape_key=shape)
    job.due_ns = NOW_NS + int(left_ms * MS)
    job.deadline_ns = job.due_ns if deadline else None
    job.key = key_of(level=level, due_ns=job.due_ns, now_ns=NOW_NS)
    return job


def _judge(admission, job) -> Verdict | None:
    return admission.judge(job, now_ns=NOW_NS)


def _busy(admission, left_ms: float) -> None:
    admission.engine_free_ns = NOW_NS + int(left_ms * MS)


def test_of_an_unknown_engine_nothing_is_expected(make):
    admission, _ = make(known=False)

    assert _judge(admission, _job(0.001)) is None
    assert (admission.rows_per_s, admission.turn_ns) == (0, 0)


@pytest.mark.parametrize(("left_ms", "let_in"), [(104.9, False), (106, True)])
def test_an_idle_engine_needs_its_time_and_caution(make, left_ms, let_in):
    admission, _ = make()
    admission._last_start_ns = NOW_NS  # no time for trials

    assert (_judge(admission, _job(left_ms)) is None) == let_in


def test_a_refusal_tells_how_much_time_is_missing(make):
    admission, _ = make()
    _busy(admission, 40)

    # 40 and 100 with caution are 147; 5 of the 120 are for the way: 32 are missing.
    verdict = _judge(admission, _job(120))

    assert verdict == Verdict(140 * MS, 32 * MS, hopeless=False, place=0.0)


def test_a_short_deadline_keeps_a_16th_for_the_way(make):
    admission, _ = make()
    _busy(admission, 1)

    # Of 32, two are for the way, so 30 are left; 101 with caution are 106.05.
    verdict = _judge(admission, _job(32))

    assert verdict == Verdict(100 * MS, int(76.05 * MS), hopeless=True, place=0.0)


def test_a_large_request_needs_several_batches(make):
    admission, _ = make()

    assert _judge(admission, _job(300, rows=20)).needed_ns == 300 * MS
    assert _judge(admission, _job(330, rows=20)) is None


def test_the_pace_of_a_backlog_counts_for_what_waits_in_one_and_in_whole_batches(make):
    admission, room = make()
    admission.pace.factor = 2.0
    _busy(admission, 10)

    assert _judge(admission, _job(108)).needed_ns == 110 * MS  # nobody waits
    room.add(_job(50, rows=8))
    assert _judge(admission, _job(300)).needed_ns == (10 + 2 * 200) * MS


def test_what_waits_behind_does_not_count_for_the_request_itself(make):
    admission, room = make()
    _busy(admission, 100)
    room.add(_job(5_000, rows=8))
    room.add(_job(240, rows=8))

    assert _judge(admission, _job(300, rows=8)).needed_ns == 300 * MS
    assert _judge(admission, _job(330, rows=8)) is None


def _least_left_ms(admission, *, overtaking: float) -> int:
    """The least whole time with which one row is let in behind all others."""
    for left_ms in range(21, 2_000):
        admission.urgency.overtaking = overtaking * 64 / 63  # the request itself overtakes nobody
        if _judge(admission, _job(left_ms)) is None:
            return left_ms
    raise AssertionError("nothing is let in")


@pytest.mark.parametrize(
    ("pace", "instances", "ahead_ms"), [(1.0, 1, 100), (2.0, 1, 200), (1.0, 2, 50)]
)
def test_who_can_wait_leaves_time_for_urgent_ones_that_will_come(make, pace, instances, ahead_ms):
    admission, room = make(instances=instances)
    _judge(admission, _job(1))
    admission.pace.factor = pace
    room.add(_job(20, rows=8))

    least_ms = _least_left_ms(admission, overtaking=0)

    kept_ms = _least_left_ms(admission, overtaking=0.6) - least_ms
    assert kept_ms == pytest.approx(1.05 * 1.5 * ahead_ms, abs=2)  # with caution


def test_how_many_are_overtaken_is_learned_from_who_is_judged(make):
    admission, room = make()
    _judge(admission, _job(1))
    room.add(_job(500, rows=8))

    for _ in range(300):
        _judge(admission, _job(100))
        _judge(admission, _job(600))

    assert admission.urgency.overtaking == pytest.approx(0.5, abs=0.02)


def test_who_goes_ahead_of_all_needs_no_time_for_others(make):
    admission, room = make()
    _judge(admission, _job(1))
    room.add(_job(5_000, rows=8))
    admission.urgency.overtaking = 0.6

    assert _judge(admission, _job(114)) is None


def test_batches_become_shorter_for_urgent_requests(make):
    admission, room = make(time_ns=lambda rows: (8 + 20 * rows) * MS)
    room.add(_job(5_000))
    batch = room.take(room.next_lane(), most_rows=1)
    before = admission.best_rows

    _judge(admission, _job(250))
    admission.learn(batch, took_ns=28 * MS, now_ns=NOW_NS, backlog=False)

    assert (before, admission.best_rows) == (6, 4)  # 88 ms instead of 128


def test_priority_counts_before_deadlines(make):
    admission, room = make()
    _busy(admission, 100)
    room.add(_job(5_000, rows=8, level=1))

    assert _judge(admission, _job(250, rows=8, level=1)) is None
    assert _judge(admission, _job(250, rows=8, level=2)).needed_ns == 300 * MS


@pytest.mark.parametrize(("behind_ms", "let_in"), [(300, False), (330, True)])
def test_nobody_behind_may_become_late(make, behind_ms, let_in):
    admission, room = make()
    _busy(admission, 100)
    room.add(_job(behind_ms, rows=8))

    # It would be done after 200 ms, and the other one after 300, with caution 315.
    assert (_judge(admission, _job(220, rows=8)) is None) == let_in


def test_everybody_behind_is_looked_at_not_only_the_next(make):
    admission, room = make()
    _busy(admission, 100)
    for left_ms in (1_000, 1_010, 1_040):
        room.add(_job(left_ms, rows=24))  # 300 each: done after 400, 700, 1000

    verdict = _judge(admission, _job(220, rows=8))

    # After 1100 then, with caution 1155: 115 too late, and at most a 64th of 1040 more.
    assert not verdict.hopeless
    assert 115 * MS <= verdict.retry_after_ns <= (115 + 1_040 / 64) * MS


def test_where_order_is_kept_nobody_is_overtaken(make):
    admission, room = make(ordered_by_deadline=False)
    _busy(admission, 100)
    for number in range(2):
        waiting = _job(300, rows=8)
        waiting.key = number
        room.add(waiting)
    job = _job(450, rows=8)
    job.key = 2

    assert _judge(admission, job) is None
    job.due_ns = NOW_NS + 400 * MS
    assert _judge(admission, job).needed_ns == 400 * MS


def test_each_shape_counts_with_its_own_time(make, calibrated):
    admission, room = make()
    admission._times["slow"] = calibrated(lambda _: 1_000 * MS)
    room.add(_job(5_000, rows=8, shape="slow"))

    assert _judge(admission, _job(5_100, rows=8)) is None
    assert _judge(admission, _job(6_000, rows=8, shape="slow")) is None
    room.add(_job(5_000, rows=16, shape="slow"))
    room.add(_job(5_000, rows=8))
    # Three slow batches, one quick one, and its own.
    late = _job(5_200, rows=24, shape="slow")
    assert _judge(admission, late).needed_ns == (3_000 + 100 + 3_000) * MS


def test_instances_divide_the_work_but_not_a_batch(make):
    admission, room = make(instances=4)
    _busy(admission, 10)
    for _ in range(4):
        room.add(_job(90_000, rows=8, level=1))

    # Five batches on four engines; a batch alone takes 100.
    assert _judge(admission, _job(125, level=2)).needed_ns == 135 * MS
    alone, _ = make(instances=4)
    _busy(alone, 10)
    assert _judge(alone, _job(115)).needed_ns == 110 * MS


def test_a_batch_that_runs_late_is_expected_to_need_more(make):
    admission, _ = make()
    admission._last_start_ns = NOW_NS - 160 * MS
    _busy(admission, -60)

    # An eighth of the 160 ms so far.
    assert _judge(admission, _job(121)).needed_ns == 120 * MS


def test_only_an_idle_engine_tries_what_looks_hopeless_and_only_now_and_then(make):
    admission, room = make()
    hopeless = _job(50)
    admission._last_start_ns = NOW_NS - 5_000 * MS
    assert _judge(admission, hopeless).hopeless
    admission._last_start_ns -= 1
    assert _judge(admission, hopeless) is None
    _busy(admission, 1)
    assert _judge(admission, hopeless).hopeless
    admission.engine_free_ns = 0
    room.add(_job(9_000))
    assert _judge(admission, hopeless).hopeless


def test_patience_is_no_deadline(make):
    admission, _ = make()
    patient = _job(50, deadline=False)
    admission._last_start_ns = NOW_NS

    assert _judge(admission, patient) is None
    _busy(admission, 10)
    assert _judge(admission, patient).needed_ns == 110 * MS
    assert not _judge(admission, patient).hopeless


@pytest.mark.parametrize(
    ("left_ms", "rows"), [(200, 8), (126, 8), (124, 7), (76, 4), (32, 1), (31, 8), (-5, 8)]
)
def test_a_batch_is_as_large_as_its_first_request_has_time_for(make, left_ms, rows):
    admission, room = make(time_ns=lambda rows: (20 + 10 * rows) * MS)
    first = _job(left_ms)
    room.add(first)
    room.add(_job(9_000, rows=20))

    # 30 ms for one row, 60 for four, 90 for seven; who is late anyway does not hinder the others.
    assert admission.most_rows(room.next_lane(), first, now_ns=NOW_NS) == rows


def test_a_batch_that_runs_is_expected_to_end_and_teaches_its_time(make):
    admission, room = make()
    room.add(_job(900, rows=3))
    batch = room.take(room.next_lane(), most_rows=8)

    assert admission.expect(batch, begin_ns=NOW_NS) == NOW_NS + 100 * MS
    for _ in range(60):
        admission.learn(batch, took_ns=200 * MS, now_ns=NOW_NS, backlog=False)
    assert admission.expect(batch, begin_ns=0) == pytest.approx(200 * MS, rel=0.02)


def test_what_the_engine_can_do_is_known_by_rows_and_instances(make):
    admission, _ = make(instances=2)

    assert admission.rows_per_s == pytest.approx(2 * 80)  # 8 rows in 100 ms, twice
    assert admission.turn_ns == 100 * MS


def test_caution_rises_with_each_late_request_and_falls_slowly(make):
    admission, _ = make()
    least = admission.caution
    late, in_time = _job(10), _job(10)

    admission.finished(late, now_ns=late.due_ns)
    assert admission.caution == pytest.approx(least + 0.02)
    for _ in range(100):
        admission.finished(in_time, now_ns=NOW_NS)
    assert least < admission.caution < least + 0.02
    for _ in range(1_000):
        admission.finished(in_time, now_ns=NOW_NS)
    assert admission.caution == least
    for _ in range(1_000):
        admission.finished(late, now_ns=late.due_ns + 1)
    assert admission.caution == 3  # and no more


def test_who_gave_no_deadline_teaches_no_caution(make):
    admission, _ = make()
    before = admission.caution

    admission.finished(_job(-100, deadline=False), now_ns=NOW_NS)

    assert admission.caution == before


def test_the_shapes_whose_times_are_kept_have_a_bound(make):
    admission, _ = make(known=False)

    for number in range(1_000):
        admission.service_time((number,)).observe(rows=1, took_ns=5)

    assert len(admission._times) <= 256
    assert admission.service_time((999,)).predict_ns(1) == 5  # the newest are there
