"""How long batches take: the ladder, what lies between, and how quickly it is learned anew."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.service_time import ServiceTime, ladder

US = 1_000


@pytest.mark.parametrize(
    ("max_rows", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (5, (1, 2, 3, 4, 5)),
        (7, (1, 2, 3, 4, 6, 7)),
        (32, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)),
        (100, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 100)),
    ],
)
def test_the_ladder_has_two_steps_to_an_octave_and_the_largest(max_rows, sizes):
    assert ladder(max_rows) == sizes
    assert tuple(ServiceTime(max_rows).sizes) == sizes


def test_nothing_is_known_at_first_and_the_largest_batch_is_tried():
    times = ServiceTime(8)

    assert (times.predict_ns(1), times.predict_ns(8), times.drain_ns(99)) == (0, 0, 0)
    assert times.best_rows == times.most_rows_within(10) == 8


def test_between_two_sizes_lies_the_straight_line(calibrated):
    times = calibrated({1: 100, 2: 120, 3: 140, 4: 200, 6: 240, 8: 400}.get)

    assert [times.predict_ns(rows) for rows in (1, 4, 5, 6, 7, 8)] == [100, 200, 220, 240, 320, 400]


def test_beyond_the_largest_size_time_grows_with_the_rows(calibrated):
    assert calibrated(lambda _: 400).predict_ns(12) == 600


def test_the_best_size_is_the_smallest_that_is_nearly_as_fast_as_any(calibrated):
    # Rows per microsecond: 10, 16.7, 21.4, 20, 25, 25.6; and 25 is within 3 % of that.
    times = calibrated({1: 100, 2: 120, 3: 140, 4: 200, 6: 240, 8: 312}.get)

    assert (times.best_rows, times.best_ns, times.row_ns) == (6, 240, 40)


def test_what_a_batch_costs_besides_asks_for_larger_ones():
    times = ServiceTime(8, batch_cost_ns=200)
    for rows in times.sizes:
        times.calibrate(rows=rows, took_ns=100 * rows)

    assert (times.best_rows, times.best_ns) == (8, 800)  # 6 rows in 800 are 6 % slower
    assert times.predict_ns(4) == 400
    assert times.copy().best_rows == 8


def test_where_batches_do_not_pay_the_best_is_one_row(calibrated):
    assert calibrated(lambda rows: 100 * rows).best_rows == 1


def test_rows_drain_in_batches_of_the_best_size(calibrated):
    times = calibrated({1: 100, 2: 120, 3: 140, 4: 200, 6: 240, 8: 312}.get)

    assert times.drain_ns(0) == 0
    assert times.drain_ns(6) == 240
    assert times.drain_ns(20) == 3 * 240 + 120  # 6 + 6 + 6 + 2
    assert times.drain_ns(1) == 100


@pytest.mark.parametrize(
    ("limit_ns", "rows"), [(-5, 1), (0, 1), (99, 1), (139, 2), (140, 3), (219, 4), (220, 5)]
)
def test_a_limit_bounds_the_batch_but_leaves_one_row(calibrated, limit_ns, rows):
    times = calibrated({1: 100, 2: 120, 3: 140, 4: 200, 6: 240, 8: 312}.get)

    assert times.most_rows_within(limit_ns) == rows


@pytest.mark.parametrize("limit_ns", [240, 311, 312, 10**9])
def test_no_batch_is_larger_than_throughput_needs(calibrated, limit_ns):
    times = calibrated({1: 100, 2: 120, 3: 140, 4: 200, 6: 240, 8: 312}.get)

    assert times.most_rows_within(limit_ns) == 6


@pytest.mark.parametrize(
    ("limit_ns", "rows"),
    [(1000, 6), (240, 6), (239, 4), (100, 4)],
    ids=["long", "fits", "4", "10%"],
)
def test_a_shorter_batch_is_the_best_one_where_it_costs_little_throughput(
    calibrated, limit_ns, rows
):
    times = calibrated(
        {1: 100, 2: 120, 3: 140, 4: 166, 6: 240, 8: 330}.get
    )  # 96 % with 4, 86 with 3
    times.limit_ns = limit_ns

    times.observe(rows=6, took_ns=240)

    assert times.best_rows == rows


def test_until_the_larger_sizes_are_measured_they_cost_in_proportion():
    times = ServiceTime(8)
    times.calibrate(rows=1, took_ns=100)
    times.calibrate(rows=2, took_ns=150)

    assert [times.predict_ns(rows) for rows in (1, 2, 4, 8)] == [100, 150, 300, 600]


def test_the_first_batch_tells_of_its_size_and_leaves_larger_ones_to_be_tried():
    times = ServiceTime(8)

    times.observe(rows=2, took_ns=1_000)

    assert times.predict_ns(2) == 1_000
    assert 2_000 < times.predict_ns(8) < 4_000
    assert times.best_rows == 8


@pytest.mark.parametrize("max_rows", [2, 3, 5, 8, 32, 100])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_that_was_never_measured_does_not_keep_to_small_batches(max_rows, rows):
    times = ServiceTime(max_rows)

    times.observe(rows=rows, took_ns=1_000)

    assert times.best_rows >= 0.95 * max_rows


def test_batches_that_do_not_pay_are_found_out():
    times = ServiceTime(8)

    for _ in range(60):
        for rows in (8, 1, 2):
            times.observe(rows=rows, took_ns=100 * rows * rows)

    assert times.best_rows <= 2  # the time grows with the square: more rows are slower each


@pytest.mark.parametrize("took_us", [0, 1, 10_000_000])
def test_one_outlier_moves_little(calibrated, took_us):
    times = calibrated(lambda rows: (100 + 10 * rows) * US)
    before = [times.predict_ns(rows) for rows in range(1, 9)]

    times.observe(rows=4, took_ns=took_us * US)

    for rows, was_ns in enumerate(before, start=1):
        assert times.predict_ns(rows) == pytest.approx(was_ns, rel=0.12)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_machine_of_another_speed_is_followed_within_20_batches(calibrated, factor):
    def took_ns(rows: int) -> int:
        return int(factor * (100 + 10 * rows) * US)

    times = calibrated(lambda rows: (100 + 10 * rows) * US)

    for _ in range(20):
        times.observe(rows=8, took_ns=took_ns(8))

    assert times.predict_ns(8) == pytest.approx(took_ns(8), rel=0.05)
    # Sizes that were not run follow more slowly, but they follow.
    assert abs(times.predict_ns(2) / took_ns(2) - 1) < abs(1 / factor - 1) * 0.8


def test_a_batch_between_two_sizes_teaches_both(calibrated):
    times = calibrated(lambda _: 1_000)

    for _ in range(60):
        times.observe(rows=5, took_ns=2_000)

    assert [times.predict_ns(rows) for rows in (4, 5, 6)] == pytest.approx([2_000] * 3, rel=0.02)
    assert times.predict_ns(1) < 2_000


def test_a_copy_learns_on_its_own(calibrated):
    times = calibrated(lambda _: 1_000)
    copy = times.copy()

    copy.observe(rows=1, took_ns=9_000)

    assert times.predict_ns(1) == 1_000
    assert copy.predict_ns(1) > 1_000


@given(
    st.integers(1, 64), st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10**12)), max_size=30)
)
@settings(max_examples=80, deadline=None)
def test_whatever_is_observed_predictions_stay_sane(max_rows, batches):
    times = ServiceTime(max_rows)
    for rows, took_ns in batches:
        times.observe(rows=min(rows, max_rows), took_ns=took_ns)

    assert times.best_rows in times.sizes
    for rows in range(1, max_rows + 1):
        assert 0 <= times.predict_ns(rows) < 10**15
    for limit_ns in (-1, 0, 10**6, 10**13):
        rows = times.most_rows_within(limit_ns)
        assert 1 <= rows <= times.best_rows
