"""Ratios of two versions: simulated machines that are noisier than any we would accept."""

import numpy as np
import pytest

from loadtest.comparison import HELD, MISSED, UNSURE, Ratio, judge, ratio
from ridgeline.errors import InvalidInput


def a_round(slowdown, *, random, pairs=20):
    """Pairs of blocks on a pair of servers that differ by 4 %, one in twelve by a third.

    The machine drifts by half, and every block has 12 % of noise of its own.
    """
    machine = 1 + 0.5 * np.sin(random.uniform(0, 6) + np.linspace(0, 3, pairs))
    server = random.lognormal(0, 0.04) * random.choice(
        [1.35, 1 / 1.35, 1], p=[1 / 24, 1 / 24, 11 / 12]
    )
    own = random.lognormal(0, 0.12, size=(2, pairs))
    return (machine * own[0]).tolist(), (slowdown * server * machine * own[1]).tolist()


def verdict(slowdown, *, seed):
    """As `ridgeline check` comes to it: more rounds until it can be told, or forty are done."""
    random = np.random.default_rng(seed)
    rounds = [a_round(slowdown, random=random) for _ in range(3)]
    found = UNSURE
    while found == UNSURE and len(rounds) < 40:
        rounds.append(a_round(slowdown, random=random))
        found = judge(ratio(rounds), at_most=1.05)
    return found


def verdicts(slowdown):
    return [verdict(slowdown, seed=seed) for seed in range(20)]


def test_two_identical_versions_are_passed():
    assert verdicts(1.0).count(HELD) >= 19


def test_a_slowdown_of_a_tenth_is_found():
    assert verdicts(1.10).count(MISSED) >= 19


def test_a_slowdown_of_a_quarter_is_always_found():
    assert set(verdicts(1.25)) == {MISSED}


def test_the_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [ratio([a_round(1.10, random=random) for _ in range(16)]) for _ in range(200)]
    covered = sum(each.low <= 1.10 <= each.high for each in found)
    assert covered >= 0.85 * len(found)  # 90 % are promised


def test_blocks_on_one_pair_of_servers_do_not_pass_for_many_servers():
    """However sure each round is, the interval spans what rounds differ by."""
    rounds = [([1.0] * 20, [slowdown] * 20) for slowdown in (0.9, 1.0, 1.1, 1.2)]
    found = ratio(rounds)
    assert found.value == pytest.approx(1.05, abs=0.01)
    assert found.high - found.low > 0.1


def test_what_is_near_the_limit_is_left_open():
    near = Ratio(value=1.05, low=1.02, high=1.08, rounds=40)
    assert judge(near, at_most=1.05) == UNSURE
    assert judge(near, at_least=1.05) == UNSURE
    assert judge(near, at_most=1.1) == HELD
    assert judge(near, at_least=1.1) == MISSED
    assert judge(near, at_least=1.0) == HELD


def test_too_few_rounds_unlike_rounds_and_no_limit_are_refused():
    even, odd = ([1.0] * 8, [1.0] * 8), ([1.0] * 8, [1.0] * 7)
    with pytest.raises(InvalidInput, match=r"at least 4 rounds .* received 3 rounds"):
        ratio([even] * 3)
    with pytest.raises(InvalidInput, match=r"4 rounds with \[7, 8\] figures"):
        ratio([even, even, even, odd])
    with pytest.raises(InvalidInput, match="received neither"):
        judge(Ratio(1, 1, 1, 8))
