"""Warm-up, drift and noise in latencies made up for the purpose."""

import numpy as np
import pytest

from loadtest.steadiness import steadiness

MS = 1_000_000


def latencies(*medians_ms, count=2000, seed=0):
    """Latencies around the medians, which follow each other in equal parts."""
    middle = np.repeat(np.array(medians_ms, dtype=float), count // len(medians_ms))
    noise = np.random.default_rng(seed).normal(1, 0.05, size=len(middle))
    return (MS * middle * noise).astype(np.int64)


def test_a_steady_run_is_left_whole():
    found = steadiness(latencies(10))
    assert found.warm_from == 0
    assert found.drift == 0
    assert found.noise < 0.05
    assert found.reasons() == []


def test_a_slow_start_is_warm_up():
    found = steadiness(latencies(50, *[10] * 9))
    assert 200 <= found.warm_from <= 1000
    assert found.reasons() == []


def test_a_fast_start_is_none():
    assert steadiness(latencies(5, *[10] * 9)).warm_from == 0


@pytest.mark.parametrize(("last_ms", "word"), [(20, "rose"), (5, "fell")])
def test_a_latency_that_moves_all_the_time_drifts(last_ms, word):
    found = steadiness(latencies(*np.linspace(10, last_ms, 20)))
    assert any(reason.startswith(f"drift: the latency {word} by") for reason in found.reasons())


def test_a_latency_that_jumps_to_and_fro_is_noise():
    found = steadiness(latencies(*[10, 40] * 10))
    assert found.drift == 0
    assert any(reason.startswith("noise: medians of 20 parts") for reason in found.reasons())


def test_of_too_few_requests_nothing_can_be_said():
    assert steadiness(latencies(10, count=399)) is None


def test_latencies_that_are_all_the_same_do_not_drift():
    found = steadiness(np.full(400, 5 * MS))
    assert (found.drift, found.noise) == (0, 0)
