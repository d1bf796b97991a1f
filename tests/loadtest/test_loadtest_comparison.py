"""Ratios of two versions: simulated machines that are noisier than any we would accept."""

import numpy as np
import pytest

from loadtest.comparison import HELD, MISSED, UNSURE, Ratio, judge, ratio
from ridgeline.errors import InvalidInput


def blocks(slowdown, *, pairs, seed, noise=0.08):
    """Pairs of blocks on a machine that drifts by half, with noise of its own in each block."""
    random = np.random.default_rng(seed)
    machine = 1 + 0.5 * np.sin(np.linspace(0, 9, pairs))
    own = random.lognormal(0, noise, size=(2, pairs))
    return (machine * own[0]).tolist(), (slowdown * machine * own[1]).tolist()


def verdicts(slowdown, *, trials=40, pairs=80):
    return [
        judge(ratio(*blocks(slowdown, pairs=pairs, seed=seed)), at_most=1.05)
        for seed in range(trials)
    ]


def test_two_identical_versions_are_never_told_apart():
    found = verdicts(1.0, pairs=240)  # as many as are taken where it cannot be told sooner
    assert found.count(MISSED) == 0
    assert found.count(HELD) >= 0.95 * len(found)


def test_a_slowdown_of_a_tenth_is_found():
    found = verdicts(1.10, pairs=240)
    assert found.count(HELD) == 0
    assert found.count(MISSED) >= 0.95 * len(found)


def test_a_slowdown_of_a_quarter_is_always_found():
    assert set(verdicts(1.25)) == {MISSED}


def test_the_interval_covers_as_often_as_it_says():
    found = [ratio(*blocks(1.10, pairs=40, seed=seed)) for seed in range(200)]
    covered = sum(each.low <= 1.10 <= each.high for each in found)
    assert covered >= 0.96 * len(found)  # 99 % are promised


def test_what_is_near_the_limit_is_left_open():
    near = Ratio(value=1.05, low=1.02, high=1.08, pairs=40)
    assert judge(near, at_most=1.05) == UNSURE
    assert judge(near, at_least=1.05) == UNSURE
    assert judge(near, at_most=1.1) == HELD
    assert judge(near, at_least=1.1) == MISSED
    assert judge(near, at_least=1.0) == HELD


def test_too_few_pairs_and_no_limit_are_refused():
    with pytest.raises(InvalidInput, match="at least 8 pairs, received 7 and 7"):
        ratio([1.0] * 7, [1.0] * 7)
    with pytest.raises(InvalidInput, match="received neither"):
        judge(Ratio(1, 1, 1, 8))
