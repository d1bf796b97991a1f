"""The wide engine: which of several is kept, when it runs, and that both are stopped."""

import functools
import os
import threading

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
    ("narrow_ns", "wide_ns", "spinning_ns", "kept"),
    [
        (299_999, 1, 1, "narrow"),  # so short that none is even built
        (1_200_000, 1_000_001, 1_000_001, "narrow"),
        (1_200_000, 1_000_000, 1_000_000, "wide"),
        (1_200_000, 1_000_000, 910_000, "wide"),  # spinning has to be worth its price
        (1_200_000, 1_000_000, 909_090, "spinning"),
        (1_200_000, 1_300_000, 1_000_000, "spinning"),
    ],
)
def test_the_best_engine_for_a_batch_that_is_alone_is_kept_where_it_pays(
    timed, narrow_ns, wide_ns, spinning_ns, kept
):
    narrow, wide, spinning = _Named(), _Named(), _Named()
    timed({narrow: narrow_ns, wide: wide_ns, spinning: spinning_ns})
    stoppable = []

    engine = widened(
        narrow,
        inputs=INPUTS,
        wider=[lambda: wide, lambda: spinning],
        on_engine=stoppable.append,
    )

    found = engine.wide if isinstance(engine, WidenedEngine) else engine
    assert found is {"narrow": narrow, "wide": wide, "spinning": spinning}[kept]
    assert stoppable[-1] is engine
    assert len(stoppable) == (1 if narrow_ns < 300_000 else 3)


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
