import numpy as np
import pytest

from loadtest.recording import Recording
from loadtest.verdict import reasons_against

MS = 1_000_000


def recording(*, count=200, latency_ms=10.0, lag_ms=0.0, answered=None, **changes):
    intended_ns = np.arange(count, dtype=np.int64) * 20 * MS
    lags_ns = np.broadcast_to(np.asarray(lag_ms) * MS, count).astype(np.int64)
    fields = {
        "intended_ns": intended_ns,
        "sent_ns": intended_ns + lags_ns,
        "done_ns": intended_ns + int(latency_ms * MS),
        "answered": np.ones(count, dtype=bool) if answered is None else answered,
        "failures": {},
        "first_failure": None,
        "unanswered": 0,
        "elapsed_ns": count * 20 * MS,
        "client_cpu_ns": MS,
    }
    return Recording(**{**fields, **changes})


def test_a_run_without_flaws_is_valid():
    assert reasons_against(recording()) == ()


def test_failures_are_counted_and_the_first_is_quoted():
    answered = np.arange(200) >= 3
    run = recording(
        answered=answered,
        failures={"UNAVAILABLE": 2, "TIMEOUT": 1},
        first_failure="UNAVAILABLE: the queue is full",
    )
    (reason,) = reasons_against(run)
    assert reason.startswith("3 of 200 requests failed (1 x TIMEOUT, 2 x UNAVAILABLE)")
    assert reason.endswith("the first with UNAVAILABLE: the queue is full")


def test_a_client_without_time_to_spare_is_saturated():
    (reason,) = reasons_against(recording(client_busy=0.95))
    assert reason.startswith("the client is saturated: sending took 95% of a core")


def test_late_requests_are_a_reason():
    (reason,) = reasons_against(recording(unanswered=5))
    assert reason.startswith("5 requests were still unanswered")


def test_too_few_answers_are_a_reason():
    (reason,) = reasons_against(recording(count=99))
    assert reason == "only 99 requests were answered, fewer than 100"
    assert reasons_against(recording(count=99), min_requests=99) == ()


def test_no_answer_at_all_is_a_reason():
    run = recording(answered=np.zeros(200, dtype=bool), failures={"TIMEOUT": 200})
    assert "no request was answered" in reasons_against(run)


@pytest.mark.parametrize(("lag_ms", "kept"), [(2.5, True), (2.6, False)])
def test_a_client_that_sends_late_by_a_quarter_of_the_latency_is_not_to_be_trusted(lag_ms, kept):
    lags_ms = np.zeros(200)
    lags_ms[:3] = lag_ms  # 1.5 % of the requests
    reasons = reasons_against(recording(latency_ms=10.0, lag_ms=lags_ms))
    assert (reasons == ()) is kept
    assert kept or "could not keep its schedule" in reasons[0]


def test_a_single_late_request_in_two_hundred_is_no_reason():
    lags_ms = np.zeros(200)
    lags_ms[7] = 9.0
    assert reasons_against(recording(lag_ms=lags_ms)) == ()
