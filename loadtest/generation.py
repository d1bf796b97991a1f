"""Runs the load generator, a process of its own (`loadtest.wire`), and reads its times."""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.connection import split_address
from loadtest.messages import Message
from loadtest.recording import Recording, Times
from loadtest.schedule import ClosedLoop, Load, Replay, arrivals_ns
from loadtest.wire.answers import Variant, from_arrays
from loadtest.wire.ledger import ANSWERED, NEVER_SENT, UNANSWERED, name_of
from ridgeline.errors import StepFailed

_NS_PER_S, _MS_PER_S = 1_000_000_000, 1000
_GRPC_CONNECTIONS, _IN_FLIGHT_PER_CONNECTION = 4, 16
_HTTP_CONNECTIONS = 256  # of an open loop; each carries one request at a time


@dataclass(frozen=True)
class Requests:
    """What is sent: messages made beforehand, and the rows of each."""

    protocol: str
    messages: Sequence[Message]
    rows: Sequence[int]


@dataclass(frozen=True)
class Generated:
    """What came of a load: times, and the different answers to each message."""

    recording: Recording
    answers: Sequence[Variant]
    answers_unseen: int


async def generate(
    requests: Requests,
    *,
    url: str,
    load: Load,
    duration_s: float,
    seed: int,
    timeout_s: float,
    core: int | None = None,
) -> Generated:
    """Put the load on the server at `url`, and wait for the last answers for `timeout_s`.

    `core` pins the generator. Raises StepFailed where the generator cannot do its work.
    """
    with tempfile.TemporaryDirectory(prefix="ridgeline-load-") as name:
        folder = Path(name)
        spec = _spec(requests, url=url, load=load, folder=folder, duration_s=duration_s, seed=seed)
        spec |= {"core": core, "drain_s": timeout_s, "seed": seed}
        for each in spec["classes"]:
            each["deadline_ms"] = _MS_PER_S * timeout_s
        figures = await _run(spec)
        with np.load(folder / "raw.npz") as arrays:
            return _read(arrays, requests=requests, figures=figures, duration_s=duration_s)


def _spec(
    requests: Requests, *, url: str, load: Load, folder: Path, duration_s: float, seed: int
) -> dict[str, Any]:
    host, port = split_address(url)
    classes = []
    for number, message in enumerate(requests.messages):
        path = folder / f"message-{number}"
        path.write_bytes(message.body)
        classes.append({"message_path": str(path), "headers": dict(message.headers)})
    spec: dict[str, Any] = {
        "protocol": requests.protocol,
        "host": host,
        "port": port,
        "path": requests.messages[0].path,
        "classes": classes,
        "duration_s": duration_s,
        "connections": _connections(requests.protocol, load=load),
        "raw_path": str(folder / "raw.npz"),
        "keep_answers": True,
        "in_turn": True,
    }
    if isinstance(load, ClosedLoop):
        return spec | {"in_flight": load.concurrency}
    due_ns = arrivals_ns(load, duration_s=duration_s, seed=seed)
    due_ns = due_ns[due_ns < duration_s * _NS_PER_S]  # of a trace, the warm-up takes the beginning
    kinds = _kinds(load, count=len(due_ns), rows=requests.rows)
    np.savez(folder / "arrivals.npz", intended_ns=due_ns, kinds=kinds)
    return spec | {"arrivals_path": str(folder / "arrivals.npz")}


def _connections(protocol: str, *, load: Load) -> int:
    in_flight = load.concurrency if isinstance(load, ClosedLoop) else None
    if protocol == "http":
        return in_flight or _HTTP_CONNECTIONS
    if in_flight is None:
        return _GRPC_CONNECTIONS
    return max(1, min(_GRPC_CONNECTIONS, in_flight // _IN_FLIGHT_PER_CONNECTION))


def _kinds(load: Load, *, count: int, rows: Sequence[int]) -> Times:
    """Messages in turn; of a trace, those that have the rows that were recorded."""
    if not isinstance(load, Replay):
        return np.arange(count, dtype=np.int64) % len(rows)
    places = {size: [i for i, each in enumerate(rows) if each == size] for size in set(rows)}
    turns: Counter[int] = Counter()
    kinds = np.empty(count, dtype=np.int64)
    for number, size in enumerate(load.rows):
        kinds[number] = places[size][turns[size] % len(places[size])]
        turns[size] += 1
    return kinds


async def _run(spec: dict[str, Any]) -> dict[str, Any]:
    words = [sys.executable, "-m", "loadtest.wire.generator", "--json-spec", "-"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        output, complaints = await process.communicate(json.dumps(spec).encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        text = complaints.decode(errors="replace").strip().splitlines()
        raise StepFailed(f"the load generator failed: {text[-1] if text else process.returncode}")
    figures: dict[str, Any] = json.loads(output)
    return figures


def _read(
    arrays: "np.lib.npyio.NpzFile",
    *,
    requests: Requests,
    figures: dict[str, Any],
    duration_s: float,
) -> Generated:
    statuses = arrays["statuses"]
    ended = (statuses != UNANSWERED) & (statuses != NEVER_SENT)
    answered = statuses[ended] == ANSWERED
    done_ns = arrays["done_ns"][ended]
    failed = Counter(name_of(status) for status in statuses.tolist() if status not in _NO_FAILURE)
    client = figures["client"]
    recording = Recording(
        intended_ns=arrays["intended_ns"][ended],
        sent_ns=arrays["sent_ns"][ended],
        done_ns=done_ns,
        answered=answered,
        failures=dict(failed),
        first_failure=next(iter(failed), None),
        unanswered=int(np.count_nonzero(statuses == UNANSWERED)),
        elapsed_ns=max(int(duration_s * _NS_PER_S), int(done_ns[answered].max(initial=0))),
        client_cpu_ns=int(client["cpu_us_per_request"] * 1000 * max(1, figures["sent"])),
        client_busy=client["busy"],
        rows=np.asarray(requests.rows, dtype=np.int64)[arrays["kinds"][ended]],
    )
    return Generated(recording, from_arrays(arrays), int(arrays["answers_unseen"]))


_NO_FAILURE = (ANSWERED, UNANSWERED)
