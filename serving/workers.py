"""The threads that run batches, and how many of them the models of a process may keep busy."""

import asyncio
import functools
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable

from serving.completions import Completions
from serving.engine import yield_to_event_loop


class Workers:
    """Threads that run one call at a time, in the order of `run`; cheaper than an executor."""

    def __init__(self, count: int, *, name: str, completions: Completions | None = None) -> None:
        self._completions = completions or Completions()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[[], None], *, done: Callable[[], None]) -> None:
        """Run `call`, which never raises, in a thread; then `done` in the running event loop."""
        loop = asyncio.get_running_loop()
        self._calls.put(functools.partial(_run, call, loop, done, self._completions))

    def close(self) -> None:
        """End the threads when their calls are done, and wait for that."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        yield_to_event_loop()
        while (call := self._calls.get()) is not None:
            call()
            del call  # while waiting for the next, the last one's tensors are not kept alive


class EngineBudget:
    """Shares the machine's cores among the models of a process.

    Together they run at most `cores` batches at once (the process has as many), but each model may
    always run one: a heavy model takes all cores while it is alone, and cannot keep a light one
    from running. The ends of their batches come back through the same `completions`. `just_ran`
    counts the batches in the event loop since it last looked which requests have come meanwhile.
    """

    def __init__(self, cores: int) -> None:
        self.completions = Completions()
        self.cores = cores
        self.just_ran = 0
        self._running = 0
        self._waiting: OrderedDict[Callable[[], None], None] = OrderedDict()

    def begin(self, *, own: int, retry: Callable[[], None]) -> bool:
        """Take a core for a model that runs `own` batches; `retry` is called where one gets free.

        The models that wait are called in turn; who has just given a core back goes behind them.
        """
        first = next(iter(self._waiting), retry)
        if own and (self._running >= self.cores or first != retry):
            self._waiting.setdefault(retry)
            return False
        if own:  # the one that it may always run does not cost it its turn
            self._waiting.pop(retry, None)
        self._running += 1
        return True

    def end(self) -> None:
        """Give a core back."""
        self._running -= 1
        if self._waiting and self._running < self.cores:
            asyncio.get_running_loop().call_soon(self._offer)

    def _offer(self) -> None:
        while self._waiting and self._running < self.cores:
            first = next(iter(self._waiting))
            first()
            if self._running < self.cores and next(iter(self._waiting), None) == first:
                del self._waiting[first]  # it has nothing to run any more


def _run(
    call: Callable[[], None],
    loop: asyncio.AbstractEventLoop,
    done: Callable[[], None],
    completions: Completions,
) -> None:
    call()
    completions.post(done, loop=loop)
