"""Timing ways of running the same batch against each other, on a machine that others use, too."""

import statistics
import time
from collections.abc import Callable, Sequence

_LEAST_ROUNDS, _MOST_ROUNDS = 3, 15
_ENOUGH_NS = 600_000_000


def side_by_side_ns(ways: Sequence[Callable[[], object]], /) -> list[int]:
    """The median time of each way, in nanoseconds; they take turns, so that all share a bad moment.

    Each runs once before it counts: the first run allocates. Slow ones run three times, quick ones
    up to fifteen.
    """
    for run in ways:
        run()
    took: list[list[int]] = [[] for _ in ways]
    begin_ns = time.perf_counter_ns()
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and time.perf_counter_ns() - begin_ns > _ENOUGH_NS:
            break
        for times, run in zip(took, ways, strict=True):
            run_ns = time.perf_counter_ns()
            run()
            times.append(time.perf_counter_ns() - run_ns)
    return [int(statistics.median(times)) for times in took]
