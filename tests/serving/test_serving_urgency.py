"""Urgency by hand: what urgent requests are expected to take from those that wait."""

import pytest

from serving.urgency import Urgency

MS, S = 1_000_000, 1_000_000_000
NOW_NS = 10**15


@pytest.fixture
def urgency():
    return Urgency()


def _came(urgency, left_ms, *, alone_ms=1.0, after_s=0.0):
    urgency.came(
        left_ns=int(left_ms * MS), alone_ns=int(alone_ms * MS), now_ns=NOW_NS + int(after_s * S)
    )


def test_before_anything_has_come_nothing_is_urgent(urgency):
    assert urgency.batch_ns > 3600 * S
    assert urgency.overtaken_ns(100 * MS) == 0


def test_a_batch_may_take_two_fifths_of_the_shortest_time_left(urgency):
    for left_ms in (500, 20, 100):
        _came(urgency, left_ms)

    assert urgency.batch_ns == 8 * MS


@pytest.mark.parametrize(("after_s", "batch_ms"), [(1.5, 8), (2.5, 200)], ids=["kept", "forgotten"])
def test_the_shortest_time_is_remembered_for_one_to_two_seconds(urgency, after_s, batch_ms):
    _came(urgency, 20)
    _came(urgency, 500, after_s=after_s)

    assert urgency.batch_ns == batch_ms * MS


@pytest.mark.parametrize("after_s", [3.5, 100])
def test_a_pause_leaves_nothing_of_what_was_before(urgency, after_s):
    _came(urgency, 20)
    _came(urgency, 500, after_s=after_s)

    assert urgency.batch_ns == 200 * MS


def test_no_batch_is_made_shorter_for_who_could_hardly_be_answered_alone(urgency):
    _came(urgency, 100)
    _came(urgency, 20, alone_ms=8.1)

    assert urgency.batch_ns == 40 * MS


def test_of_what_is_unknown_no_batch_is_made_shorter(urgency):
    _came(urgency, 0, alone_ms=0)

    assert urgency.batch_ns > 3600 * S


def test_who_goes_ahead_of_half_of_those_who_wait_doubles_their_time(urgency):
    for _ in range(4000):
        urgency.stands(0.5, rows=1)

    assert urgency.overtaking == pytest.approx(0.5)
    assert urgency.overtaken_ns(100 * MS) == pytest.approx(100 * MS)


def test_who_stands_ahead_is_overtaken_by_fewer(urgency):
    for _ in range(4000):
        urgency.stands(0.5, rows=1)

    assert urgency.overtaken_ns(90 * MS, place=0.2) == pytest.approx(10 * MS)
    assert urgency.overtaken_ns(90 * MS, place=0.0) == 0


def test_whatever_comes_some_of_the_time_is_left_for_those_who_wait(urgency):
    for _ in range(10_000):
        urgency.stands(0.0, rows=1)

    assert urgency.overtaken_ns(100 * MS) == pytest.approx(300 * MS)


def test_those_who_queue_at_the_end_overtake_nobody(urgency):
    for _ in range(1000):
        urgency.stands(1.0, rows=1)

    assert urgency.overtaken_ns(100 * MS) == 0


def test_a_request_of_many_rows_tells_as_much_as_many_requests(urgency):
    for _ in range(400):
        urgency.stands(0.2, rows=16)
        for _ in range(16):
            urgency.stands(1.0, rows=1)

    assert urgency.overtaking == pytest.approx(0.4, abs=0.05)


def test_where_all_have_many_rows_one_of_them_decides_nothing(urgency):
    for _ in range(400):
        urgency.stands(0.5, rows=1000)
    urgency.stands(1.0, rows=1000)

    assert urgency.overtaking == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("after_s", "overtaking"), [(0.9, 0.6), (1.1, 0.3), (2.1, 0.0), (3600, 0.0)]
)
def test_when_the_urgent_ones_have_gone_nothing_is_kept_free_soon(urgency, after_s, overtaking):
    _came(urgency, 20)
    for _ in range(1000):
        urgency.stands(0.4, rows=64)

    _came(urgency, 500, after_s=after_s)

    assert urgency.overtaking == pytest.approx(overtaking)
