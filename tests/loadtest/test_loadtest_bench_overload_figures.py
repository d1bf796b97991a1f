"""Shares of a capacity, by hand."""

import pytest

from loadtest.bench.overload_figures import (
    complaints,
    medians,
    middle_run,
    rate_figures,
    remaining_per_s,
    round_figures,
)


def run(**changes):
    """A second in which 1,500 requests came: 900 answered on time, 500 refused."""
    found = {
        "offered": 1.5,
        "reference_per_s": 1000.0,
        "answered": 950,
        "answered_per_s": 950.0,
        "on_time": 900,
        "on_time_per_s": 900.0,
        "refused_per_s": 500.0,
        "refusal_p50_ms": 1.0,
        "refusal_p99_ms": 2.0,
        "requests": 1500,
        "duration_s": 1.0,
        "sent": 1500,
        "server_cpu_s": 0.75,
        "reasons": [],
        "client": {"cpu_us_per_request": 10.0},
        "classes": [
            {"deadline_ms": 100.0, "requests": 1500, "on_time": 900, "p50_ms": 20, "p99_ms": 90}
        ],
    }
    return found | changes


def test_refusals_take_from_the_capacity_what_echoes_would():
    assert remaining_per_s(1000, refusals_per_s=2000, echo_s=100e-6) == pytest.approx(800)
    assert remaining_per_s(1000, refusals_per_s=0, echo_s=1) == 1000
    assert remaining_per_s(1000, refusals_per_s=20_000, echo_s=100e-6) == 0


def test_a_rate_is_told_as_shares_of_the_capacity_and_of_what_remains():
    found = rate_figures(run(), echo_s=200e-6)
    assert found["on_time_share"] == pytest.approx(0.9)
    assert found["remaining_per_s"] == pytest.approx(900)
    assert found["on_time_to_remaining"] == pytest.approx(1.0)
    assert found["server_cpu_us_per_request"] == pytest.approx(500)
    assert found["classes"] == {"100": {"on_time_share": 0.6, "p50_ms": 20, "p99_ms": 90}}


def test_no_more_can_be_answered_than_came():
    found = rate_figures(run(requests=1800, duration_s=2.0), echo_s=0)
    assert found["on_time_share"] == pytest.approx(1.0)
    assert found["on_time_to_remaining"] == pytest.approx(1.0)
    assert found["remaining_per_s"] == 1000


def test_where_refusals_would_take_all_there_is_no_share_of_the_rest():
    found = rate_figures(run(), echo_s=1)
    assert found["on_time_to_remaining"] is None


def test_the_middle_run_is_that_of_the_median_throughput():
    runs = [run(answered_per_s=each) for each in (3.0, 1.0, 2.0)]
    assert middle_run(runs) is runs[2]


def raw():
    closed = [
        run(answered_per_s=per_s, answered=per_s, server_cpu_s=0.5) for per_s in (900, 1000, 1100)
    ]
    return {
        "capacity": closed,
        "echo": run(answered=5000, answered_per_s=5000.0, server_cpu_s=0.5),
        "rates": {
            "1": run(offered=1.0, reasons=["busy"]),
            "1.5": run(reference_per_s=2000.0, requests=3000),
        },
        "mixed": run(),
        "recovery": run(recovery_ms=40.0),
    }


def test_a_round_becomes_its_figures():
    found = round_figures(raw())
    assert found["capacity_per_s"] == 1000
    assert found["server_cpu_us"] == pytest.approx(500)
    assert found["echo_cpu_us"] == pytest.approx(100)
    assert found["recovery_ms"] == 40
    assert found["rates"]["1.5"]["remaining_per_s"] == pytest.approx(2000 * (1 - 500 * 100e-6))
    assert found["rates"]["1.5"]["on_time_share"] == pytest.approx(0.45)
    assert found["mixed"]["offered"] == 1.5


def test_medians_go_into_the_depths_and_a_missing_figure_is_an_endless_one():
    rounds = [{"a": 1, "b": {"c": 5.0}}, {"a": None, "b": {"c": 1.0}}, {"a": 3, "b": {"c": 2.0}}]
    assert medians(rounds) == {"a": 3, "b": {"c": 2.0}}
    assert medians([{"a": None}, {"a": 1}, {"a": None}]) == {"a": None}


def test_runs_that_were_invalid_are_named():
    assert complaints(raw()) == ["1 x: busy"]
