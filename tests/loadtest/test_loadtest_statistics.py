import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from loadtest.statistics import percentile, summarise
from ridgeline.errors import InvalidInput

untimed = settings(deadline=None)  # the machine may be busy
latencies = stnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(1, 10**11))


def test_percentiles_of_one_to_a_hundred_are_those_counted_by_hand():
    latency = summarise(np.arange(100, 0, -1) * 1_000_000)
    values = {name: row.value for name, row in latency.percentiles.items()}
    assert values == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert (latency.count, latency.least, latency.greatest) == (100, 1, 100)
    assert latency.mean == pytest.approx(50.5)
    assert latency.p999 == 100


def test_the_interval_of_the_median_of_a_hundred_is_that_of_the_tables():
    # 40th and 61st value: P(40 <= Binomial(100, 1/2) <= 60) = 96.5 %, the narrowest above 95 %.
    median = percentile(np.arange(1.0, 101.0), 50)
    assert (median.low, median.high) == (40, 61)


@pytest.mark.parametrize(("count", "bounded"), [(367, False), (368, True)])
def test_the_p99_has_an_upper_bound_from_368_values_on(count, bounded):
    # The largest value bounds it where 0.99**count <= 2.5 %: ln 0.025 / ln 0.99 = 367.04.
    assert (percentile(np.arange(1.0, count + 1), 99).high is not None) is bounded


@untimed
@given(latencies)
def test_a_percentile_is_one_of_the_values_and_lies_in_its_interval(latencies_ns):
    latency = summarise(latencies_ns)
    for name, row in latency.percentiles.items():
        assert (
            row.value * 1e6 in latencies_ns.astype(float)
            or np.isclose(row.value * 1e6, latencies_ns, rtol=1e-12).any()
        )
        assert np.mean(latencies_ns / 1e6 <= row.value) >= float(name[1:]) / 100 - 1e-9
        assert row.low is None or row.low <= row.value
        assert row.high is None or row.high >= row.value


@untimed
@given(latencies)
def test_the_curve_rises_from_the_least_to_near_the_greatest(latencies_ns):
    latency = summarise(latencies_ns)
    percents, values = zip(*latency.curve, strict=True)
    assert (np.diff(percents) > 0).all()
    assert (np.diff(values) >= 0).all()
    assert percents[0] == 0
    assert percents[-1] < 100
    assert values[0] == latency.least
    assert latency.least <= values[-1] <= latency.greatest


@untimed
@given(latencies, st.randoms())
def test_the_order_of_the_latencies_does_not_matter(latencies_ns, random):
    shuffled = latencies_ns.tolist()
    random.shuffle(shuffled)
    first, other = summarise(latencies_ns), summarise(np.array(shuffled))
    assert first.percentiles == other.percentiles
    assert first.curve == other.curve


def test_the_interval_covers_the_true_percentile_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    rows = [percentile(generator.exponential(size=400), 90) for _ in range(400)]
    covered = [row.low <= np.log(10) <= row.high for row in rows]  # the p90 of that distribution
    assert np.mean(covered) >= 0.93


def test_no_latency_has_no_summary():
    with pytest.raises(InvalidInput, match="at least one latency"):
        summarise(np.array([], dtype=np.int64))
