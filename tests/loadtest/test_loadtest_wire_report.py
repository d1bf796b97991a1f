"""The figures of a run over the wire, by hand."""

import numpy as np
import pytest

from loadtest.wire.ledger import ANSWERED, GAVE_UP, Entries, name_of
from loadtest.wire.report import ClientCost, answers_per_s, recovery_ms, series, summarise

MS = 1_000_000
IDLE = ClientCost(cpu_s=0.001, busy=0.1, lags_ns=np.array([0, MS]))


def entries(*rows, deadlines_ms=(100,)):
    """Rows of intended, sent and done in ms, status, class."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    times_ns, rest = columns[:3] * MS, columns[3:]
    return Entries(*times_ns, *rest, deadlines_ns=tuple(each * MS for each in deadlines_ms))


TEN = entries(
    (0, 0, 100, ANSWERED, 0),  # on time, just so
    (0, 1, 101, ANSWERED, 0),  # late, counted from when it was intended
    (150, 150, 152, 8, 0),
    (160, 160, 164, 8, 0),
    (170, 170, 173, 14, 1),
    (180, 180, 280, GAVE_UP, 0),
    (190, 190, 1190, ANSWERED, 1),  # this class has no deadline
    deadlines_ms=(100, 0),
)


def test_requests_are_counted_by_how_they_ended():
    found = summarise(TEN, client=IDLE, duration_s=0.2)
    assert found["verdict"] == "VALID"
    assert (found["requests"], found["answered"], found["on_time"], found["late"]) == (7, 3, 2, 1)
    assert found["refused"] == {"RESOURCE_EXHAUSTED": 2, "UNAVAILABLE": 1}
    assert found["failed"] == {"GAVE UP": 1}
    assert found["on_time_per_s"] == pytest.approx(10)
    assert found["refused_per_s"] == pytest.approx(15)
    assert (found["refusal_p50_ms"], found["refusal_p99_ms"]) == (3, 4)
    assert found["client"]["cpu_us_per_request"] == pytest.approx(1000 / 6)  # one was due at 0
    bound, free = found["classes"]
    assert (bound["on_time"], bound["late"], bound["refused"], bound["failed"]) == (1, 1, 2, 1)
    assert (bound["p50_ms"], bound["p99_ms"]) == (100, 101)
    assert (free["deadline_ms"], free["on_time"], free["p50_ms"]) == (None, 1, 1000)
    assert found["series"] == {"bin_ms": 100, "due": [2, 5], "on_time": [1, 1]}
    assert "recovery_ms" not in found


def test_the_rate_of_a_closed_loop_is_that_of_whole_batches():
    rows = [(0, 0, 400 * batch, ANSWERED, 0) for batch in (1, 2, 3, 4, 5) for _ in range(64)]
    batches = entries(*rows, deadlines_ms=(0,))
    # Four batches lie within 1.9 s; 256 answers divided by that would be 135 a second.
    assert answers_per_s(batches, duration_s=1.9) == pytest.approx(64 / 0.4)
    found = summarise(batches, client=IDLE, duration_s=1.9, closed=True)
    assert found["answered_per_s"] == pytest.approx(64 / 0.4)


def test_the_rate_of_a_closed_loop_with_one_instant_of_answers_is_their_number():
    one = entries(*[(0, 0, 400, ANSWERED, 0)] * 4, deadlines_ms=(0,))
    assert answers_per_s(one, duration_s=2.0) == 2
    assert answers_per_s(entries(), duration_s=2.0) == 0


def test_a_run_without_requests_has_figures_too():
    found = summarise(entries(), client=IDLE, duration_s=1.0)
    assert found["verdict"] == "INVALID"
    assert found["refusal_p99_ms"] is None
    assert series(entries()) == {"bin_ms": 100, "due": [], "on_time": []}


@pytest.mark.parametrize(
    ("busy", "lag_ms", "complaint"),
    [(0.95, 0, "core was 95% busy"), (0.1, 21, "over 20% of the smallest deadline of 100 ms")],
)
def test_a_client_that_could_not_keep_up_is_no_witness(busy, lag_ms, complaint):
    client = ClientCost(cpu_s=1, busy=busy, lags_ns=np.array([lag_ms * MS]))
    found = summarise(TEN, client=client, duration_s=1.0)
    assert found["verdict"] == "INVALID"
    (reason,) = found["reasons"]
    assert complaint in reason


@pytest.mark.parametrize(
    ("not_on_time_at", "expected"),
    [((), 0.0), ((1900,), 0.0), ((1900, 2000), 0.0), ((1900, 2300), 300.0), ((2950,), None)],
)
def test_recovery_ends_with_the_last_request_that_was_not_answered_on_time(
    not_on_time_at, expected
):
    intended_ms = np.arange(0, 3000, 50)
    on_time = ~np.isin(intended_ms, not_on_time_at)
    assert recovery_ms(intended_ms * MS, on_time=on_time, from_ns=2000 * MS) == expected


def test_a_run_that_ended_before_the_overload_did_tells_of_no_recovery():
    assert recovery_ms(np.array([1]), on_time=np.array([True]), from_ns=5) is None


def test_statuses_have_names():
    assert [name_of(status) for status in (0, 4, 429, -2)] == [
        "ANSWERED",
        "DEADLINE_EXCEEDED",
        "HTTP 429",
        "GAVE UP",
    ]
