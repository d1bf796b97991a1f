"""The pace of a backlog: what it learns of, and what it leaves out. Times are milliseconds."""

import pytest

from serving.pace import Pace

MS = 1_000_000


def _run(pace, *, every_ms: float, expected_ms: float, batches: int, backlog=True, from_ns=10**15):
    now_ns = from_ns
    for _ in range(batches):
        now_ns += int(every_ms * MS)
        pace.batch_ended(now_ns=now_ns, expected_ns=int(expected_ms * MS), backlog=backlog)
    return now_ns


def test_batches_that_follow_each_other_at_once_are_no_surprise():
    pace = Pace(instances=1)

    _run(pace, every_ms=10, expected_ms=10, batches=50)

    assert pace.factor == pytest.approx(1)


def test_what_happens_between_batches_slows_the_backlog_down():
    pace = Pace(instances=1)

    now_ns = _run(pace, every_ms=25, expected_ms=10, batches=50)
    assert pace.factor == pytest.approx(2.5, rel=0.01)
    _run(pace, every_ms=12, expected_ms=10, batches=50, from_ns=now_ns)
    assert pace.factor == pytest.approx(1.2, rel=0.01)


def test_instances_work_at_the_same_time():
    pace = Pace(instances=2)

    _run(pace, every_ms=10, expected_ms=10, batches=50)

    assert pace.factor == pytest.approx(2, rel=0.01)


def test_without_a_backlog_nothing_is_learned():
    pace = Pace(instances=1)

    _run(pace, every_ms=500, expected_ms=10, batches=50, backlog=False)

    assert pace.factor == 1


def test_one_stall_is_hardly_believed_and_no_pace_is_out_of_bounds():
    pace = Pace(instances=1)

    now_ns = _run(pace, every_ms=10, expected_ms=10, batches=5)
    now_ns = _run(pace, every_ms=60_000, expected_ms=10, batches=1, from_ns=now_ns)
    assert 1.1 < pace.factor < 1.2
    now_ns = _run(pace, every_ms=60_000, expected_ms=10, batches=100, from_ns=now_ns)
    assert pace.factor == 10
    now_ns = _run(pace, every_ms=1, expected_ms=10, batches=100, from_ns=now_ns)
    assert pace.factor == 1


def test_an_unknown_time_is_no_expectation():
    pace = Pace(instances=1)

    _run(pace, every_ms=10, expected_ms=0, batches=5)

    assert pace.factor == 1
