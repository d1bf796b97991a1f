"""What an engine is: it runs one batch. Knows no queue, no request and no protocol."""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from ridgeline.model import TensorSpec
from serving.request import Tensors

T = TypeVar("T")

NICENESS = 5  # of engine threads, above the process's own


class Engine(Protocol):
    """Runs batches of one model version; `run` is called from several threads at once."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(
        self, inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        """The named outputs, in that order, for the given inputs.

        A batch that is `alone` has the machine for itself: nothing else runs or waits.
        """

    def stop(self) -> None:
        """Make the batches that still run fail soon; called last, from any thread."""


@dataclass(frozen=True)
class EngineSettings:
    """How an engine runs a model: `threads` an inference may use, and the provider's name.

    Where it `spins`, the threads of an inference wait for each other awake, which is faster if
    nobody else needs their cores; between inferences they sleep.
    """

    threads: int
    execution_provider: str = "cpu"
    spins: bool = False


def built_nicely(build: Callable[[], T]) -> T:
    """What `build` returns; the threads that it starts let others go first where cores are short.

    A thread inherits its niceness from the one that starts it.
    """
    with ThreadPoolExecutor(1, initializer=yield_to_event_loop) as thread:
        return thread.submit(build).result()


def yield_to_event_loop() -> None:
    """Let whoever reads requests go first where cores are short: refusing one must not wait."""
    with contextlib.suppress(OSError):  # it is a help, not a need
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
