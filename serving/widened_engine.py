"""A second engine, of more threads, for the batch that runs alone.

Many requests are answered sooner by several batches of one thread each, one large request by one
batch of several threads: which it is decides at each batch.
"""

import functools
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from serving.engine import Engine, built_nicely
from serving.request import Tensors
from serving.side_by_side import side_by_side_ns

_WORTH_WIDENING_NS = 300_000  # shorter runs lose to the hand-over between threads
# Waking a thread takes tens of microseconds, at each of tens of layers: a tenth of a run like this.
_WORTH_SPINNING_NS = 10_000_000
_LEAST_SPEEDUP = 1.1  # what makes one way better than another: more than noise
_TRY_EVERY = 300  # batches, two of which try: fewer than one in a hundred, which a p99 shows
_TRIALS = 3


class WidenedEngine:
    """Runs a batch that is alone in the faster of `narrow` and `wide`, every other one in `narrow`.

    Which is faster may change while the server runs: a neighbour of a virtual machine takes a core,
    another one leaves. So the other one is tried now and then, and takes over where it is faster.
    """

    def __init__(
        self,
        narrow: Engine,
        wide: Engine,
        *,
        starts_wide: bool = True,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.narrow, self.wide = narrow, wide
        self.inputs, self.outputs = narrow.inputs, narrow.outputs
        self.usual, self._other = (wide, narrow) if starts_wide else (narrow, wide)
        self._clock_ns = clock_ns
        self._runs = 2  # of batches that were alone, one at a time: the first is no trial
        self._usual_took: tuple[list[tuple[int, ...]], int] = ([], 0)
        self._ratios: deque[float] = deque(maxlen=_TRIALS)

    def run(
        self, inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        """The named outputs; whatever the engine raises."""
        if not alone:
            return self.narrow.run(inputs, outputs=outputs)
        self._runs += 1
        past = self._runs % _TRY_EVERY
        if past > 2:
            return self.usual.run(inputs, outputs=outputs, alone=True)
        engine = self._other if past else self.usual
        begin_ns = self._clock_ns()
        results = engine.run(inputs, outputs=outputs, alone=True)
        took_ns = self._clock_ns() - begin_ns
        shapes = [array.shape for array in inputs.values()]
        if past == 0:
            self._usual_took = shapes, took_ns
        elif past == 2 and self._usual_took[0] == shapes:  # the first of the two warms caches
            self._learn(took_ns / max(1, self._usual_took[1]))
        return results

    def stop(self) -> None:
        """Stop both."""
        self.narrow.stop()
        self.wide.stop()

    def _learn(self, ratio: float) -> None:
        """Let the other one take over where it mostly took less of the usual one's time."""
        self._ratios.append(ratio)
        if len(self._ratios) == _TRIALS and statistics.median(self._ratios) <= 1 / _LEAST_SPEEDUP:
            self.usual, self._other = self._other, self.usual
            self._ratios.clear()


def widened(
    narrow: Engine,
    *,
    inputs: Tensors,
    build_wide: Callable[[bool], Engine],
    on_engine: Callable[[Engine], None],
) -> Engine:
    """The engine, beside a wide one for what runs alone, if it takes long for the `inputs`.

    `build_wide` is told whether waiting threads are to spin. `on_engine` receives the engine before
    it runs.
    """
    names = [tensor.name for tensor in narrow.outputs]

    def way(engine: Engine) -> Callable[[], object]:
        return functools.partial(engine.run, inputs, outputs=names, alone=True)

    [narrow_ns] = side_by_side_ns([way(narrow)])
    if narrow_ns < _WORTH_WIDENING_NS:
        on_engine(narrow)
        return narrow
    # By a rule, not by trial: spinning or not would else differ from start to start by chance.
    spins = narrow_ns < _WORTH_SPINNING_NS
    wide = built_nicely(functools.partial(build_wide, spins))
    on_engine(WidenedEngine(narrow, wide))
    narrow_ns, wide_ns = side_by_side_ns([way(narrow), way(wide)])
    engine = WidenedEngine(narrow, wide, starts_wide=wide_ns * _LEAST_SPEEDUP <= narrow_ns)
    on_engine(engine)
    return engine
