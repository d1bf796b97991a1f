"""The wide engine: which of several is kept, when it runs, how that changes, what stops it."""

import functools
import itertools
import os
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from serving import widened_engine
from serving.engine import NICENESS, built_nicely
from serving.widened_engine import WidenedEngine, widened

INPUTS = {"x": np.ones((1, 1), np.float32)}


@pytest.fixture
def timed(monkeypatch):
    """Tells how long engines take, and how long the narrow one takes beside them."""

    def timed(times: dict[object, int]) -> None:
        def side_by_side_ns(ways):
            return [times[way.func.__self__] for way in ways]

        monkeypatch.setattr(widened_engine, "side_by_side_ns", side_by_side_ns)

    return timed


class _Named:
    inputs = outputs = ()

    def run(self, *_inputs, **_options):
        raise AssertionError("only timed")

    def stop(self):
        pass


@pytest.mark.parametrize(
    ("narrow_ns", "wide_ns", "spins", "starts_wide"),
    [
        (300_000, 272_727, True, True),
        (300_000, 272_728, True, False),  # no gain now: perhaps later
        (9_999_999, 1, True, True),
        (10_000_000, 1, False, True),  # so long that waking threads is not felt
    ],
)
def test_a_batch_that_is_alone_has_a_wide_engine_and_begins_with_the_faster(
    timed, narrow_ns, wide_ns, spins, starts_wide
):
    narrow, wide = _Named(), _Named()
    timed({narrow: narrow_ns, wide: wide_ns})
    stoppable, asked = [], []

    def build_wide(spins):
        asked.append(spins)
        return wide

    engine = widened(narrow, inputs=INPUTS, build_wide=build_wide, on_engine=stoppable.append)

    assert asked == [spins]
    assert engine.usual is (wide if starts_wide else narrow)
    assert stoppable[-1] is engine
    assert stoppable[0].wide is wide  # to be stopped while it is tried


def test_a_short_run_is_not_worth_another_engine(timed):
    narrow = _Named()
    timed({narrow: 299_999})
    stoppable = []

    engine = widened(narrow, inputs=INPUTS, build_wide=pytest.fail, on_engine=stoppable.append)

    assert engine is narrow
    assert stoppable == [narrow]


class _Timed:
    """An engine that takes `took_ns` of a clock for each row."""

    inputs = outputs = ()

    def __init__(self, clock, took_ns: int) -> None:
        self.clock, self.took_ns, self.runs = clock, took_ns, 0

    def run(self, inputs, /, **_options):
        self.runs += 1
        self.clock.now_ns += self.took_ns * len(inputs["x"])
        return []

    def stop(self):
        pass


def _run(engine: WidenedEngine, *, times: int, rows: Sequence[int] = (1,)) -> None:
    for number in range(times):
        engine.run({"x": np.ones((rows[number % len(rows)], 1))}, outputs=[], alone=True)


def test_the_other_engine_takes_over_when_it_has_become_faster(clock):
    narrow, wide = _Timed(clock, 1000), _Timed(clock, 700)
    engine = WidenedEngine(narrow, wide, clock_ns=clock)

    _run(engine, times=10_000)
    assert engine.usual is wide
    assert narrow.runs <= 10_000 / 100  # rare enough that no p99 shows it
    wide.took_ns = 1100  # a neighbour took the second core
    _run(engine, times=10_000)
    assert engine.usual is narrow
    wide.took_ns = 700
    _run(engine, times=10_000)
    assert engine.usual is wide


def test_an_engine_that_is_hardly_faster_and_a_single_lucky_run_change_nothing(clock):
    narrow, wide = _Timed(clock, 1000), _Timed(clock, 1050)
    engine = WidenedEngine(narrow, wide, clock_ns=clock)
    _run(engine, times=10_000)
    assert engine.usual is wide

    wide.took_ns = 700
    lucky = itertools.cycle([100, 1000, 1000])
    for took_ns in itertools.islice(lucky, 60):
        narrow.took_ns = took_ns
        _run(engine, times=300)

    assert engine.usual is wide


def test_batches_of_different_sizes_are_not_compared(clock):
    narrow, wide = _Timed(clock, 1000), _Timed(clock, 700)
    engine = WidenedEngine(narrow, wide, starts_wide=False, clock_ns=clock)

    _run(engine, times=20_000, rows=[1, 16, 64])  # the one before a trial has another size

    assert engine.usual is narrow


@pytest.mark.parametrize("alone", [False, True])
def test_only_a_batch_that_is_alone_takes_the_wide_engine(make_engine, alone):
    narrow, wide = make_engine(), make_engine()
    engine = WidenedEngine(narrow, wide)

    [answer] = engine.run(INPUTS, outputs=["y"], alone=alone)

    assert answer.tolist() == [[2]]
    assert (len(narrow.batches), len(wide.batches)) == ((0, 1) if alone else (1, 0))
    assert (engine.inputs, engine.outputs) == (narrow.inputs, narrow.outputs)


def test_both_engines_are_stopped(make_engine):
    narrow, wide = make_engine(), make_engine()

    WidenedEngine(narrow, wide).stop()

    assert (narrow.stopped, wide.stopped) == (True, True)


def test_threads_of_an_engine_let_others_go_first():
    def niceness() -> int:
        found = []
        thread = threading.Thread(
            target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        )
        thread.start()
        thread.join()
        return found[0]

    assert built_nicely(niceness) == min(19, NICENESS)
    assert built_nicely(functools.partial(int, "7")) == 7
