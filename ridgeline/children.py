"""Commands of ours as child processes, that never outlive whoever started them."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from ridgeline.errors import StepFailed

_STOP_SECONDS = 40  # longer than a server drains
_STOP_WORKER_SECONDS = 5  # one that waits for others inside TensorFlow hears nothing


@contextlib.contextmanager
def gateway(
    repository: Path, *, python: str = sys.executable, checkout: Path | None = None
) -> Iterator[Mapping[str, Any]]:
    """A gateway on free ports, and where it listens; stopped gracefully at the end.

    `python` is the interpreter, `checkout` the folder whose code it runs: by default, those of this
    process. Raises StepFailed where it does not start or does not stop cleanly.
    """
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    words = _words("serve", "--repository", repository.resolve(), *ports)
    with _child([python, *words[1:]], checkout=checkout) as process:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise StepFailed(f"the gateway did not start: exit code {process.wait()}")
        yield json.loads(line)
        process.terminate()
        if code := process.wait(_STOP_SECONDS):
            raise StepFailed(f"the gateway did not stop cleanly: exit code {code}")


def step(title: str, *words: object) -> dict[str, Any]:
    """Run one command of ours and return its JSON. Raises StepFailed; its message is above."""
    Console(stderr=True).print(f"[bold]{title}[/bold]")
    with _child(_words(*words)) as process:
        output, _ = process.communicate()
        if process.returncode:
            raise StepFailed(f"step {title!r} failed with exit code {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return result


def side_by_side(*words: object, environments: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Run one command of ours once for each environment, all at once; the first one's JSON.

    As soon as one fails the others are stopped. What the first writes to standard error is seen
    meanwhile. Raises StepFailed, with the last line of another that failed.
    """
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as running:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in environments]
        for number, (environment, file) in enumerate(zip(environments, files, strict=True)):
            first = number == 0
            child = _child(
                _words(*words),
                environment=environment,
                stop_seconds=_STOP_WORKER_SECONDS,
                stdout=file if first else subprocess.DEVNULL,
                stderr=None if first else file,
            )
            process = stack.enter_context(child)
            ended = os.pidfd_open(process.pid)
            stack.callback(os.close, ended)
            running.register(ended, selectors.EVENT_READ, (number, process))
        while running.get_map():
            for key, _ in running.select():
                running.unregister(key.fileobj)
                number, process = key.data
                if code := process.wait():
                    raise StepFailed(
                        f"process {number} of {len(files)} ended with exit code {code}"
                        + (f": {_last_line(files[number])}" if number else "; its message is above")
                    )
        files[0].seek(0)
        result: dict[str, Any] = json.load(files[0])
        return result


def _last_line(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip().rpartition("\n")[2]


def _words(*words: object) -> list[str]:
    return [sys.executable, "-m", "ridgeline", *map(str, words), "--json"]


@contextlib.contextmanager
def _child(
    words: list[str],
    *,
    checkout: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stop_seconds: float = _STOP_SECONDS,
    stdout: int | IO[str] = subprocess.PIPE,
    stderr: IO[str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A child process that does not outlive this block, nor this process."""
    variables = {**os.environ, "RIDGELINE_STOP_WITH_PARENT": "1", **(environment or {})}
    if checkout:
        variables["PYTHONPATH"] = str(checkout)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and commands
        words, stdout=stdout, stderr=stderr, text=True, env=variables, cwd=checkout
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()
