"""Gains are ratios of turns, with an interval that says whether there is one."""

import numpy as np
import pytest

from export import gain


def turns(*ratios):
    return np.array([(1e6 * ratio, 1e6) for ratio in ratios])


def test_the_gain_is_the_median_over_turns_within_ranks_of_the_binomial():
    found = gain.gain_of(turns(*np.linspace(1, 2, 31)))
    assert found.gain == pytest.approx(1.5)
    assert (found.low, found.high) == pytest.approx((1 + 9 / 30, 1 + 21 / 30))  # ranks 10 and 22
    assert (found.full_ms, found.variant_ms, found.turns) == (pytest.approx(1.5), 1, 31)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([2.0] * 31, "it gains"),
        ([0.5] * 31, "it does not gain"),
        ([0.5, 2.0] * 15 + [1.0], "no difference was found"),
    ],
)
def test_only_an_interval_beside_one_is_a_difference(ratios, verdict):
    assert gain.gain_of(turns(*ratios)).verdict == verdict


def test_both_graphs_run_the_same_batches_as_often():
    seen = {"full": [], "variant": []}

    def runs(name):
        return lambda batch: seen[name].append(len(batch["x"])) or {}

    told = gain.measure(runs("full"), runs("variant"), inputs={"x": np.zeros((64, 2))})
    assert set(told) == {"batch_1", "batch_8"}
    assert set(seen["full"]) == {1, 8}
    assert seen["full"] == seen["variant"]
    assert told["batch_1"]["turns"] >= 31
