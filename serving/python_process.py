"""One worker process of a Python model: started, spoken with, watched, stopped.

A thread of its own starts the process, reads its messages and its output, and sees its end. It
lives as long as the process, because the kernel takes its end for the server's
(PR_SET_PDEATHSIG): so nothing is left where the server is killed.
"""

import logging
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgeline.errors import DeadlineExceeded, Unavailable
from serving.python_worker.wire import Channel, Message

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[1]  # the worker imports from here
_LAST_LINES = 12  # of its output, that are told after a crash
_MOST_LINE_BYTES = 65_536
_READ_BYTES = 65_536
_FINALIZE_S, _TERMINATE_S = 5.0, 1.0

Received = tuple[Message, list[np.ndarray]]


class WorkerDied(Unavailable):
    """The worker process ended while it was at work."""


@dataclass(frozen=True)
class WorkerTask:
    """What a worker runs: model.py, the arguments of `initialize`, and how long it may take."""

    name: str  # of the instance, for people
    path: Path
    arguments: dict[str, str]
    start_s: float
    execute_s: float


class PythonProcess:
    """A worker process; `on_message` gets what it sends beside its answers, in the thread.

    The messages are "response" and "call"; and, once, "dead", with the reason.
    """

    def __init__(
        self, task: WorkerTask, *, on_message: Callable[["PythonProcess", Received], None]
    ) -> None:
        self._task = task
        self._on_message = on_message
        self._replies: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"{task.name}-watch")
        self.dead = False
        self._stopping = False

    def start(self) -> str:
        """Start the process and load the model; returns its configuration, completed, as JSON.

        Raises Unavailable where that fails or takes too long.
        """
        self._thread.start()
        message, _ = self._reply(self._task.start_s, doing="started")  # "born" or "dead"
        if message["say"] == "born":
            task = {"do": "load", "path": str(self._task.path), "arguments": self._task.arguments}
            self.send(task)
            message, _ = self._reply(self._task.start_s, doing="initialized")
        if message["say"] != "loaded":
            self.kill()
            raise Unavailable(f"{message['text']}")
        return str(message["config"])

    def execute(self, message: Message, arrays: Sequence[np.ndarray]) -> Received:
        """Run requests. Raises WorkerDied, DeadlineExceeded where there is no answer in time."""
        self.send(message, arrays)
        received = self._reply(self._task.execute_s, doing="answered")
        if received[0]["say"] == "dead":
            raise WorkerDied(received[0]["text"])
        return received

    def send(self, message: Message, arrays: Sequence[np.ndarray] = ()) -> None:
        """Send a message; to a process that is dead, nothing: that is told elsewhere."""
        if self._channel is not None and not self.dead:
            try:
                self._channel.send(message, arrays)
            except OSError:
                logger.debug("%s has gone", self._task.name)

    def close(self) -> None:
        """Let the model finalize, then see to it that the process ends. Blocks for some seconds."""
        self._stopping = True
        if not self._thread.ident:
            return
        self.send({"do": "finish"})
        self._thread.join(_FINALIZE_S)
        for number, wait_s in ((signal.SIGTERM, _TERMINATE_S), (signal.SIGKILL, None)):
            if self._thread.is_alive():
                self._signal(number)
                self._thread.join(wait_s)

    def kill(self) -> None:
        """End the process at once; from any thread."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        process = self._process
        if process is not None and not self.dead:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                logger.debug("%s has ended by itself", self._task.name)

    def _reply(self, limit_s: float, *, doing: str) -> Received:
        try:
            return self._replies.get(timeout=limit_s)
        except queue.Empty:
            self.kill()
            self.dead = True  # though it may take a moment: nobody asks it any more
            raise DeadlineExceeded(
                f"the worker process has not {doing} within {limit_s:g} s, and was ended"
            ) from None

    # --- in the thread ---------------------------------------------------------------------------

    def _watch(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = process = _spawned(theirs)
        except OSError as error:
            self.dead = True
            self._replies.put(({"say": "dead", "text": f"no worker process: {error}"}, []))
            return
        self._channel = Channel(ours)
        self._replies.put(({"say": "born"}, []))
        try:
            self._read(process, ours)
        finally:
            code = self._end(process)
            ours.close()
        text = self._reason(code)
        if not self._stopping:
            logger.error("%s: %s", self._task.name, text)
        said: Received = ({"say": "dead", "text": text}, [])
        self._replies.put(said)
        self._on_message(self, said)

    def _read(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        """Take messages and output until the process ends."""
        output = process.stdout
        if output is None or self._channel is None:
            return
        os.set_blocking(output.fileno(), False)
        ended = os.pidfd_open(process.pid)
        rest = b""
        try:
            with selectors.DefaultSelector() as selector:
                for stream in (ours.fileno(), output.fileno(), ended):
                    selector.register(stream, selectors.EVENT_READ)
                while True:
                    ready = {key.fd for key, _ in selector.select()}
                    if output.fileno() in ready:
                        data = output.read(_READ_BYTES)
                        rest = self._logged(rest + (data or b""))
                        if data == b"":
                            selector.unregister(output.fileno())
                    if ours.fileno() in ready:
                        if not self._take():
                            selector.unregister(ours.fileno())
                    elif ended in ready:
                        break
            self._logged(rest + (output.read() or b"") + b"\n")
        finally:
            os.close(ended)
            output.close()

    def _take(self) -> bool:
        """One message; False where there will be none any more."""
        try:
            received = self._channel.receive() if self._channel else None
        except OSError:  # it has been ended
            return False
        except (ValueError, KeyError) as error:
            logger.warning("%s sent what is no message: %s", self._task.name, error)
            self.kill()
            return False
        if received is None:
            return False
        said = received[0]["say"]
        if said == "log":
            level = logging.getLevelName(received[0]["level"].upper())
            logger.log(level, "%s: %s", self._task.name, received[0]["text"])
        elif said in ("loaded", "failed", "executed"):
            self._replies.put(received)
        else:
            self._on_message(self, received)
        return True

    def _logged(self, data: bytes) -> bytes:
        """Write whole lines into the log; returns what is left over."""
        *lines, rest = data.split(b"\n")
        if len(rest) > _MOST_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            text = line[:_MOST_LINE_BYTES].decode("utf-8", "replace").rstrip()
            if text:
                self._lines.append(text)
                logger.info("%s: %s", self._task.name, text)
        return rest

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        """Reap the process, and end what it has started."""
        self.dead = True
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            logger.debug("%s has left no process behind", self._task.name)
        return process.wait()

    def _reason(self, code: int) -> str:
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        lines = "".join(f"\n  {line}" for line in self._lines)
        return f"the worker process ended ({how})" + (f"; its last output:{lines}" if lines else "")


def _spawned(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """A worker at the other end of a socket, in a process group of its own: Ctrl-C is ours."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    words = [sys.executable, "-u", "-m", "serving.python_worker", str(theirs.fileno())]
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
