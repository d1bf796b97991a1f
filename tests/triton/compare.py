"""Ridgeline and the real Triton answer the conformance cases alike, or it is known why not.

Usage: python tests/triton/compare.py VENV [--write]. Serves the test repository with both, puts
every case to both, prints what differs without a reason in conformance/differences.toml, and writes
the table of docs/conformance.md where told. Exit code 0 where every difference has its reason.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from conformance import comparison, document, repository, suite
from conformance.case import Outcome, Verdict

ROOT = Path(__file__).parents[2]
_START_SECONDS = 300
# As Triton's own `explicit` mode, which alone allows models to be loaded and unloaded.
EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
TRITON_FLAGS = (*EXPLICIT, "--exit-on-error=false")


def main() -> int:
    venv, write = Path(sys.argv[1]), "--write" in sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        compared = compared_with_triton(venv, folder=Path(os.environ.get("KEEP", folder)))
    reasons = comparison.read_reasons()
    for each in comparison.unexplained(compared):
        print(f"{each.case}\n  Ridgeline: {_told(each.ours)}\n  Triton:    {_told(each.theirs)}")
    for pattern in comparison.idle(compared, reasons=reasons):
        print(f"differences.toml explains what does not differ: {pattern}")
    if write:
        document.write(ROOT / "docs/conformance.md", compared, against="Triton 2.51")
    differing = [each for each in compared if each.differs]
    print(f"{len(compared)} cases, {len(differing)} answered differently")
    return 1 if comparison.unexplained(compared) else 0


def compared_with_triton(venv, *, folder):
    """Every case at both servers, which are started for it and stopped."""
    models = folder / "models"
    repository.write(models)
    reasons = comparison.read_reasons()
    with ridgeline(models, errors=folder / "ridgeline") as (grpc, http):
        ours = _asked(grpc, http)
    deadly = [reason for reason in reasons if reason.kind == "crash"]
    with triton(venv, models) as (grpc, http):
        theirs = _asked(grpc, http, spare=deadly)
    for name, outcomes in (("ours", ours), ("theirs", theirs)):
        told = [outcome.to_json() for outcome in outcomes]
        (folder / f"{name}.json").write_text(json.dumps(told, indent=1))
    return comparison.compare(ours, theirs=theirs, reasons=reasons)


def _asked(grpc, http, *, spare=()):
    with suite.connected(grpc=grpc, http=http) as server:
        return suite.run(server, spare=lambda name: any(why.explains(name) for why in spare))


@contextmanager
def ridgeline(models, *, errors):
    """A gateway over the models: its addresses."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    command = [sys.executable, "-m", "ridgeline", "serve", "--json", *ports]
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [*command, f"--repository={models}", *EXPLICIT, "--status-codes=triton"],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RIDGELINE_STOP_WITH_PARENT": "1"},
        )
    try:
        ready = json.loads(process.stdout.readline())
        yield f"127.0.0.1:{ready['grpc_port']}", f"127.0.0.1:{ready['http_port']}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def triton(venv, models):
    """The real Triton over the models: its addresses."""
    ports = [_free_port(), _free_port()]
    start = Path(__file__).with_name("start")
    command = [start, venv, models, *map(str, ports), *TRITON_FLAGS, "--log-error=false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    addresses = tuple(f"127.0.0.1:{port}" for port in ports)
    try:
        _wait_until_ready(addresses, server)
        yield addresses
    finally:
        server.terminate()
        server.wait(60)


def _wait_until_ready(addresses, server):
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if suite.ready(grpc=addresses[0], http=addresses[1]):
            return
        time.sleep(0.5)
    raise SystemExit("Triton did not become ready")


def _told(outcome: Outcome) -> str:
    if outcome.verdict is Verdict.NOT_RUN:
        return f"not run: {outcome.reason}"
    return json.dumps(outcome.answer.to_json())[:300]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
