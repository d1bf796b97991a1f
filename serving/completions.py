"""How the ends of batches come back from the engine's threads into the event loop.

While every engine is busy, and more requests wait than the next batch can take, reading yet another
request gains nothing: it would only wake the process, take the interpreter's lock away from an
engine's thread, and cost a system call of its own. So the loop dozes until a batch has ended, for
a few milliseconds at most; what came meanwhile is read at once. Network cards do the same
("interrupt moderation").
"""

import asyncio
import contextlib
import queue
from collections.abc import Callable
from typing import Final

Call = Callable[[], None]

_NS_PER_S: Final = 1_000_000_000
# Each reading takes a core from the engine for 0.1 ms. Longer, and refusals would be late.
MOST_DOZE_NS: Final = 3_000_000


class Completions:
    """Brings calls from threads into one event loop; all models of a process share it."""

    def __init__(self, *, most_doze_ns: int = MOST_DOZE_NS) -> None:
        self._most_doze_s = most_doze_ns / _NS_PER_S
        self._ended: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._dozing = False
        self._doze_is_due = False
        self._turns = 0

    def post(self, call: Call, *, loop: asyncio.AbstractEventLoop) -> None:
        """Run `call` in the event loop soon; called from any thread."""
        self._ended.put(call)
        # The loop sets this before it sleeps and clears it before it looks for the last time:
        # whatever was put before it was seen set is found.
        if not self._dozing:
            loop.call_soon_threadsafe(self._run_all)

    def doze(self) -> None:
        """Let the loop doze once it has done what is due, until a batch ends or time is up."""
        if not self._doze_is_due:
            self._doze_is_due, self._turns = True, 0
            asyncio.get_running_loop().call_soon(self._fall_asleep)

    def _fall_asleep(self) -> None:
        if not self._turns:  # answers that were written in this turn leave in the next
            self._turns = 1
            asyncio.get_running_loop().call_soon(self._fall_asleep)
            return
        self._doze_is_due = False
        self._dozing = True
        call: Call | None = None
        with contextlib.suppress(queue.Empty):
            call = self._ended.get(timeout=self._most_doze_s)
        self._dozing = False
        if call is not None:
            call()
        self._run_all()

    def _run_all(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._ended.get_nowait()()
