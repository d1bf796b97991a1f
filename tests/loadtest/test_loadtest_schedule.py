import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from loadtest.schedule import MAX_ARRIVALS, ClosedLoop, OpenLoop, poisson_arrivals_ns
from ridgeline.errors import InvalidInput

untimed = settings(deadline=None)  # the machine may be busy
rates = st.floats(0.1, 2000)
durations = st.floats(0, 5)
seeds = st.integers(0, 2**63)


@untimed
@given(rate=rates, duration_s=durations, seed=seeds)
def test_arrivals_rise_and_lie_within_the_duration(rate, duration_s, seed):
    arrivals_ns = poisson_arrivals_ns(OpenLoop(rate), duration_s=duration_s, seed=seed)
    assert arrivals_ns.dtype == np.int64
    assert (np.diff(arrivals_ns) >= 0).all()
    assert ((arrivals_ns >= 0) & (arrivals_ns < 1e9 * duration_s)).all()


@untimed
@given(rate=rates, duration_s=durations, seed=seeds)
def test_the_number_of_arrivals_is_that_of_a_poisson_process(rate, duration_s, seed):
    count = len(poisson_arrivals_ns(OpenLoop(rate), duration_s=duration_s, seed=seed))
    expected = rate * duration_s
    assert abs(count - expected) <= 8 * np.sqrt(expected) + 12  # never, in any number of examples


@untimed
@given(rate=rates, seed=seeds)
def test_the_same_seed_gives_the_same_schedule(rate, seed):
    first, again = (poisson_arrivals_ns(OpenLoop(rate), duration_s=2, seed=seed) for _ in "ab")
    assert first.tolist() == again.tolist()


def test_other_seeds_give_other_schedules():
    first, other = (poisson_arrivals_ns(OpenLoop(100), duration_s=2, seed=s) for s in (1, 2))
    assert first.tolist() != other.tolist()


def test_gaps_between_arrivals_are_exponential():
    arrivals_ns = poisson_arrivals_ns(OpenLoop(1000), duration_s=20, seed=3)
    gaps_s = np.diff(arrivals_ns) / 1e9
    assert kstest(gaps_s, "expon", args=(0, 1 / 1000)).pvalue > 0.01


def test_more_arrivals_than_fit_into_memory_are_refused():
    with pytest.raises(InvalidInput, match=f"at most {MAX_ARRIVALS}"):
        poisson_arrivals_ns(OpenLoop(1e9), duration_s=10, seed=0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InvalidInput, match="rate must be a positive number"):
        OpenLoop(rate)


def test_a_closed_loop_needs_a_slot():
    with pytest.raises(InvalidInput, match="at least 1, received 0"):
        ClosedLoop(0)
