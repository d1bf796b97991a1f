"""Compares two versions of the server, which run side by side and are measured in turns."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest import eventloop
from loadtest.check import Announce, message_for, running
from loadtest.comparison import HELD, UNSURE, Round, judge, ratio
from loadtest.connection import split_address
from loadtest.findings import Finding
from loadtest.protocols import connect
from loadtest.versions import Version
from ridgeline.errors import StepFailed

_IN_FLIGHT = {"p50": 1, "throughput": 32}
_KEYS = {"p50": "p50_ns", "throughput": "per_s"}
_LEAST_BLOCK_S, _REQUESTS_PER_BLOCK = 0.1, 20
_PROBE_S, _NS_PER_S = 0.3, 1e9
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Effort:
    """How much to measure: pairs of blocks on a pair of servers, and how many pairs of servers."""

    pairs: int = 20
    rounds: int = 4
    most_rounds: int = 40


def compare(
    model: str,
    *,
    limits: Mapping[str, float],
    versions: tuple[Version, Version],
    repository: Path,
    effort: Effort,
    announce: Announce,
    seed: int = 0,
) -> list[Finding]:
    """Judge the candidate (the second version) by ratios to the baseline.

    `limits` holds "p50" (at most) and "throughput" (at least). Rounds go on until every ratio is
    judged, or `effort.most_rounds` are done.
    """
    figures: dict[str, list[Round]] = {key: [] for key in limits}
    findings: list[Finding] = []
    for number in range(1, effort.most_rounds + 1):
        announce(f"{model}: versions side by side, round {number}")
        late_first = (seed + number) % 2 == 1  # whoever starts first may be better off
        with _both(versions, late_first=late_first, repository=repository, model=model) as specs:
            for key, rounds in figures.items():
                drawn = 1000 * seed + number
                rounds.append(_alternate(specs, key=key, pairs=effort.pairs, seed=drawn))
        if number < effort.rounds:
            continue
        findings = [
            _finding(model, key=key, limit=limits[key], rounds=rounds)
            for key, rounds in figures.items()
        ]
        if not any(each.verdict == UNSURE for each in findings):
            break
    return findings


def _finding(model: str, *, key: str, limit: float, rounds: list[Round]) -> Finding:
    found = ratio(rounds)
    least = key == "throughput"
    bounds = {"at_least": limit} if least else {"at_most": limit}
    verdict = judge(found, **bounds)
    note = f"{found.rounds} rounds"
    if verdict == UNSURE:
        note += "; more rounds or a quieter machine would settle it"
    return Finding(
        model=model,
        scenario="against the baseline",
        key=key,
        limit=limit,
        least=least,
        value=found.value,
        low=found.low,
        high=found.high,
        verdict=verdict,
        note=note if verdict != HELD else "",
    )


@contextlib.contextmanager
def _both(
    versions: tuple[Version, Version], *, late_first: bool, repository: Path, model: str
) -> Iterator[list[dict[str, Any]]]:
    """Both servers run, started in one order or the other; yields what to tell the generator."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = (1, 0) if late_first else (0, 1)
        started = {
            place: stack.enter_context(
                running(versions[place], repository=repository, models=[model])
            )
            for place in places
        }
        servers = [started[place] for place in (0, 1)]
        body = eventloop.run(_body(servers[0].url, model=model))
        (folder / "message").write_bytes(body)
        specs = []
        for server in servers:
            host, port = split_address(server.url)
            specs.append(
                {
                    "protocol": "grpc",
                    "host": host,
                    "port": port,
                    "path": "/inference.GRPCInferenceService/ModelInfer",
                    "classes": [{"message_path": str(folder / "message")}],
                    "duration_s": _PROBE_S,
                }
            )
        yield specs


async def _body(url: str, *, model: str) -> bytes:
    connection = connect(protocol="grpc", url=url, model=model, version="")
    try:
        return (await message_for(connection, model=model, batch_size=1)).body
    finally:
        await connection.close()


def _alternate(
    specs: list[dict[str, Any]], *, key: str, pairs: int, seed: int
) -> tuple[list[float], list[float]]:
    loaded = [spec | {"in_flight": _IN_FLIGHT[key]} for spec in specs]
    probe = _generate({"specs": loaded, "pairs": 2, "block_s": _PROBE_S, "seed": seed})
    slowest_s = max(max(times) for times in probe["p50_ns"]) / _NS_PER_S
    block_s = max(_LEAST_BLOCK_S, _REQUESTS_PER_BLOCK * slowest_s / _IN_FLIGHT[key])
    found = _generate({"specs": loaded, "pairs": pairs, "block_s": block_s, "seed": seed})
    if sum(found["failed"]):
        raise StepFailed(f"requests failed while two versions were compared: {found['failed']}")
    baseline, candidate = found[_KEYS[key]]
    return baseline, candidate


def _generate(told: Mapping[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.wire.alternating"],
        input=json.dumps(told).encode(),
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        raise StepFailed(f"the load generator failed: {done.stderr.decode(errors='replace')}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
