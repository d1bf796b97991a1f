"""A second engine, of more threads, for the batch that runs alone: where it pays.

Many requests are answered sooner by several batches of one thread each, one large request by one
batch of several threads: which it is decides at each batch.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from serving.engine import Engine, built_nicely
from serving.request import Tensors
from serving.side_by_side import side_by_side_ns

_WORTH_WIDENING_NS = 300_000  # shorter runs lose to the hand-over between threads
_LEAST_SPEEDUP = 1.2  # of the first that is tried, over one thread
_LEAST_GAIN = 1.1  # of each further one, over the best before


class WidenedEngine:
    """Runs a batch that is alone in `wide`, every other one in `narrow`."""

    def __init__(self, narrow: Engine, wide: Engine) -> None:
        self.narrow, self.wide = narrow, wide
        self.inputs, self.outputs = narrow.inputs, narrow.outputs

    def run(
        self, inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        """The named outputs; whatever the engine raises."""
        return (self.wide if alone else self.narrow).run(inputs, outputs=outputs, alone=alone)

    def stop(self) -> None:
        """Stop both."""
        self.narrow.stop()
        self.wide.stop()


def widened(
    narrow: Engine,
    *,
    inputs: Tensors,
    wider: Sequence[Callable[[], Engine]],
    on_engine: Callable[[Engine], None],
) -> Engine:
    """The engine, with the best of the `wider` ones for what runs alone, where one pays.

    They are built and tried in turn on the `inputs`; a later one has to be clearly faster.
    `on_engine` receives each before its first run, together with the narrow one.
    """
    names = [tensor.name for tensor in narrow.outputs]

    def way(engine: Engine) -> Callable[[], object]:
        return functools.partial(engine.run, inputs, outputs=names, alone=True)

    [narrow_ns] = side_by_side_ns([way(narrow)])
    best, least_speedup = narrow, _LEAST_SPEEDUP
    for build in wider if narrow_ns >= _WORTH_WIDENING_NS else ():
        wide = built_nicely(build)
        both = WidenedEngine(narrow, wide)
        on_engine(both)
        narrow_ns, wide_ns = side_by_side_ns([way(narrow), way(wide)])
        speedup = narrow_ns / max(1, wide_ns)
        if speedup >= least_speedup:
            best, least_speedup = both, _LEAST_GAIN * speedup
    on_engine(best)
    return best
