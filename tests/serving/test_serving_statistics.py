"""Counters of a model version: durations of a batch count once per request in it."""

from serving.statistics import BatchTimes, Duration, FailureReason, Histogram, ModelStatistics

TIMES = BatchTimes(compute_input_ns=1, compute_infer_ns=20_000, compute_output_ns=300)


def test_several_answers_count_as_if_each_came_alone():
    together, apart = ModelStatistics(), ModelStatistics()

    together.record_answers(TIMES, rows=6, requests=[(30_000, 5_000), (90_000, 70_000)])
    apart.record_answers(TIMES, rows=4, requests=[(30_000, 5_000)])
    apart.record_answers(TIMES, rows=2, requests=[(90_000, 70_000)])

    for statistics in (together, apart):
        assert (statistics.success, statistics.inference_count) == (2, 6)
        assert (statistics.request_ns, statistics.queue_ns) == (120_000, 75_000)
        assert statistics.compute_input_ns == 2
        assert statistics.compute_infer_ns == 40_000
        assert statistics.compute_output_ns == 600
        assert statistics.request_us.counts[:5] == [0, 0, 1, 1, 0]  # up to 10, 20, 50, 100 us
        assert (statistics.request_us.sum, statistics.queue_us.sum) == (120, 75)
        assert statistics.execution_count == 0  # batches are counted as they run


def test_a_batch_that_completes_no_request_counts_nothing_but_itself():
    statistics = ModelStatistics()

    statistics.record_batch(TIMES, rows=8)
    statistics.record_answers(TIMES, rows=0, requests=[])

    assert (statistics.success, statistics.inference_count, statistics.compute_infer_ns) == (0,) * 3
    assert (statistics.execution_count, statistics.batch_rows.sum) == (1, 8)


def test_failures_count_by_their_reason():
    statistics = ModelStatistics()

    for reason in (FailureReason.REJECTED, FailureReason.CANCELED, FailureReason.REJECTED):
        statistics.record_failure(reason)

    assert statistics.failure == {FailureReason.REJECTED: 2, FailureReason.CANCELED: 1}


def test_many_observations_are_counted_as_one_by_one():
    together, apart = Histogram((1, 2, 5)), Histogram((1, 2, 5))
    values = [0, 1, 1.5, 5, 6]

    together.observe_all(values)
    for value in values:
        apart.observe(value)

    assert together.counts == apart.counts == [2, 1, 1, 1]
    assert together.sum == apart.sum == 13.5


def test_the_times_of_a_batch_add_up():
    assert TIMES.total_ns == 20_301


def test_batches_are_counted_by_their_size():
    statistics = ModelStatistics()

    for rows in (2, 8, 2):
        statistics.record_batch(TIMES, rows=rows)

    assert sorted(statistics.by_batch_size) == [2, 8]
    of_two = statistics.by_batch_size[2]
    assert (of_two.compute_input, of_two.compute_infer, of_two.compute_output) == (
        Duration(2, 2),
        Duration(2, 40_000),
        Duration(2, 600),
    )
    assert statistics.last_inference_ms > 1_600_000_000_000  # milliseconds since 1970


def test_what_does_not_fit_a_model_is_no_failure():
    statistics = ModelStatistics()

    statistics.record_invalid()
    statistics.record_failure(FailureReason.CANCELED, request_ns=7)
    statistics.record_failure(FailureReason.REJECTED, request_ns=5)

    assert (statistics.invalid, statistics.failure.total(), statistics.failure_ns) == (1, 2, 12)


def test_responses_are_counted_by_their_place():
    statistics = ModelStatistics()

    for place in (0, 1, 0):
        statistics.response(place).success.add(10)

    assert {key: found.success for key, found in statistics.by_response.items()} == {
        "0": Duration(2, 20),
        "1": Duration(1, 10),
    }
