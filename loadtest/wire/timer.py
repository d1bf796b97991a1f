"""A timer exact to some tens of microseconds, where libuv's are to a millisecond (Linux)."""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1  # linux/time.h, TFD_TIMER_ABSTIME
_NS_PER_S = 1_000_000_000


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Setting(ctypes.Structure):
    _fields_ = [("interval", _Time), ("value", _Time)]


class Timer:
    """Calls `due` in the running event loop at the times that it is set to, one after the other."""

    def __init__(self, due: Callable[[], object]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, flags)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._due, self._setting = due, _Setting()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._fired)

    def set(self, at_ns: int) -> None:
        """The next call comes at that `time.monotonic_ns`, or at once where it has passed."""
        at_ns = max(at_ns, 1)  # 0 would stop the timer
        self._setting.value.seconds, self._setting.value.nanoseconds = divmod(at_ns, _NS_PER_S)
        self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(self._setting), None)

    def close(self) -> None:
        """It calls no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
            self._due()
