"""Servers of others as processes, of which none outlives its block. Linux: reads /proc."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import StepFailed

_START_SECONDS, _STOP_SECONDS = 60, 10
_POLL_SECONDS = 0.05
_LOG_TAIL_CHARACTERS = 2000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here, since little is safe between fork and exec


@dataclass(frozen=True)
class ServerProcess:
    """A server in a session of its own, whose number is its process id; it writes into `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def session_id(self) -> int:
        """The number that all its processes share."""
        return self.process.pid

    def log_text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def server_process(words: Sequence[str], *, log: Path) -> Iterator[ServerProcess]:
    """A command with all the processes that it starts; at the end, SIGTERM, then SIGKILL to all.

    Should this process die without reaching the end, the kernel sends the command SIGTERM.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own command lines
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_stop_with_parent,
        )
    try:
        yield ServerProcess(process, log)
    finally:
        try:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        finally:
            _kill_session(process.pid)
            process.wait()


def wait_until(ready: Callable[[], bool], *, server: ServerProcess, name: str) -> None:
    """Ask `ready` until it agrees. Raises StepFailed, with the end of the log, if it never does."""
    deadline_s = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline_s and server.process.poll() is None:
        if ready():
            return
        time.sleep(_POLL_SECONDS)
    code = server.process.poll()
    how = "did not get ready in time" if code is None else f"ended with exit code {code}"
    raise StepFailed(f"{name} {how}: {server.log_text()[-_LOG_TAIL_CHARACTERS:].strip()}")


def session_process_ids(session_id: int) -> tuple[int, ...]:
    """The living processes of a session, by rising number; those that have ended do not count."""
    numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return tuple(sorted(number for number in numbers if _session_of(number) == session_id))


def _session_of(process_id: int) -> int | None:
    try:
        text = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, _parent, _group, session, *_ = text.rsplit(")", 1)[1].split()  # proc(5)
    return None if state in "ZX" else int(session)


def _kill_session(session_id: int) -> None:
    """Until none is left: one may start another while the first are being killed."""
    while living := session_process_ids(session_id):
        for number in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _stop_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
