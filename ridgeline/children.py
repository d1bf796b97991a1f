"""Commands of ours as child processes, that never outlive whoever started them."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ridgeline.errors import StepFailed

_STOP_SECONDS = 40  # longer than a server drains


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


def _words(*words: object) -> list[str]:
    return [sys.executable, "-m", "ridgeline", *map(str, words), "--json"]


@contextlib.contextmanager
def _child(words: list[str], *, checkout: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A child process that does not outlive this block, nor this process."""
    environment = {**os.environ, "RIDGELINE_STOP_WITH_PARENT": "1"}
    if checkout:
        environment["PYTHONPATH"] = str(checkout)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and commands
        words, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()
