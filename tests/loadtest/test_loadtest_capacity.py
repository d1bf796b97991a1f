"""The search for the largest rate, on servers that exist only as a formula."""

import asyncio

import pytest

from loadtest.capacity import HOLDS, MISSES, OPEN, Probe, search
from ridgeline.errors import InvalidInput


def probe(rate, *, p99, width=0.02, failed=0, duration_s=1.0, wrong=0):
    return Probe(
        rate_per_s=rate,
        answered_per_s=rate,
        p50_ms=p99 / 3,
        p99_ms=p99,
        p99_low_ms=None if width is None else p99 * (1 - width),
        p99_high_ms=None if width is None else p99 * (1 + width),
        failed=failed,
        duration_s=duration_s,
        wrong=wrong,
    )


def find(latency_ms, *, estimate=1010, budget_ms=10.0, width=0.0001):
    """Search on a server whose p99 at each rate is `latency_ms(rate)`."""
    asked = []

    async def attempt(rate, duration_s):
        asked.append((rate, duration_s))
        return probe(rate, p99=latency_ms(rate), width=width, duration_s=duration_s)

    found = asyncio.run(
        search(attempt, budget_ms=budget_ms, estimate_per_s=estimate, duration_s=1.0)
    )
    return found, asked


def queue(rate):
    """As one server with Poisson arrivals: 10 ms are reached at 800 a second."""
    return 2.0 / (1 - rate / 1000) if rate < 1000 else 10_000


@pytest.mark.parametrize("estimate", [100, 1010, 20_000])
def test_the_bounds_enclose_what_the_server_bears(estimate):
    found, _ = find(queue, estimate=estimate)
    assert found.held_per_s < 800 < found.missed_per_s * 1.02
    assert found.missed_per_s <= 1.06 * found.held_per_s
    assert found.open_per_s is None


def test_a_probe_that_cannot_be_judged_is_repeated_for_longer_and_then_left_open():
    found, asked = find(lambda _: 10.0, width=0.5)
    assert [duration_s for _, duration_s in asked] == [1.0, 2.0, 4.0]
    assert found.open_per_s == 505
    assert (found.held_per_s, found.missed_per_s) == (None, None)


def test_a_server_that_never_holds_the_budget_has_no_capacity():
    found, asked = find(lambda _: 50.0)
    assert found.held_per_s is None
    assert len(asked) == 14


def test_refusals_and_wrong_answers_miss_and_too_few_answers_leave_open():
    assert probe(1, p99=1, failed=1).judged(10) == MISSES
    assert probe(1, p99=1, wrong=1).judged(10) == MISSES
    assert probe(1, p99=1, width=None).judged(10) == OPEN
    assert probe(1, p99=1).judged(10) == HOLDS


def test_the_curve_rises_in_the_result():
    found, _ = find(queue)
    table = found.to_json()
    rates = [each["rate_per_s"] for each in table["probes"]]
    assert rates == sorted(rates)
    assert {each["judged"] for each in table["probes"]} == {HOLDS, MISSES}


@pytest.mark.parametrize(("budget_ms", "estimate"), [(0, 1), (1, 0), (float("inf"), 1)])
def test_a_budget_or_an_estimate_of_nothing_is_refused(budget_ms, estimate):
    with pytest.raises(InvalidInput, match="must be positive"):
        find(queue, budget_ms=budget_ms, estimate=estimate)
