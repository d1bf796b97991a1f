"""Timing side by side: ways take turns, the first run does not count, slow ones run less often."""

import pytest

from serving import side_by_side
from serving.side_by_side import side_by_side_ns


@pytest.fixture
def way(monkeypatch):
    """Makes ways of running that take as long as told, the first time much longer."""
    now_ns = [0]
    monkeypatch.setattr(side_by_side.time, "perf_counter_ns", lambda: now_ns[0])

    def way(took_ns, name, log):
        def run():
            now_ns[0] += took_ns if name in log else 10**12
            log.append(name)

        return run

    return way


def test_ways_take_turns_and_their_first_run_does_not_count(way):
    log = []

    assert side_by_side_ns([way(5, "a", log), way(7, "b", log)]) == [5, 7]

    assert log == ["a", "b"] * 16


def test_slow_ways_run_three_times(way):
    log = []

    assert side_by_side_ns([way(10**9, "a", log)]) == [10**9]

    assert len(log) == 1 + 3
