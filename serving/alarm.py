"""One timer of the event loop, which is only ever moved to an earlier moment."""

import asyncio
from collections.abc import Callable
from typing import Final

_NS_PER_S: Final = 1_000_000_000


class Alarm:
    """Calls `ring` at the earliest moment that it was set to, by `clock`; then it is not set."""

    def __init__(self, ring: Callable[[], None], *, clock: Callable[[], int]) -> None:
        self._ring = ring
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._at_ns = 0

    def set(self, at_ns: int, /) -> None:
        """Ring at that moment, or earlier."""
        if self._timer is not None:
            if at_ns >= self._at_ns:
                return
            self._timer.cancel()
        self._at_ns = at_ns
        delay_s = max(0, at_ns - self._clock()) / _NS_PER_S
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._rings)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
