"""Checks the budgets of a server that it starts itself, in rounds on servers started anew.

A process may be lucky in where its memory lies: a limit is held where it was in every round, with
its whole confidence interval, and missed where it was in every round. Anything else is left open,
with what would settle it.
"""

import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import eventloop, measurement
from loadtest.comparison import HELD, MISSED, UNSURE
from loadtest.findings import Finding, judged
from loadtest.messages import Message, request
from loadtest.protocols import connect
from loadtest.result import RunResult
from loadtest.samples import random_batch
from loadtest.schedule import ClosedLoop, Load, OpenLoop
from loadtest.served import served_model
from loadtest.settings import LoadtestSettings
from loadtest.versions import Version
from ridgeline.budget import AT_LEAST, OFFLINE, SERVER, Budgets, ScenarioBudget
from ridgeline.children import gateway
from ridgeline.errors import StepFailed

_OFFLINE_CONCURRENCY = 32
_TIMEOUT_S, _WARMUP_S = 60.0, 0.5
_KIB_PER_MIB = 1024

Announce = Callable[[str], object]


@dataclass(frozen=True)
class Running:
    """A server that has answered a request for each model."""

    url: str
    process_id: int
    metrics_port: int
    cold_start_s: float


@dataclass(frozen=True)
class Plan:
    """How to check: the models served, rounds, seconds for each scenario in each round."""

    repository: Path
    rounds: int = 3
    duration_s: float = 3.0
    seed: int = 0


def check_budgets(
    budgets: Budgets, *, plan: Plan, version: Version, announce: Announce
) -> list[Finding]:
    """Measure and judge every limit but those of the regression."""
    rounds: list[dict[tuple[str, str, str], _Figure]] = []
    for number in range(1, plan.rounds + 1):
        announce(f"round {number} of {plan.rounds}")
        with running(version, repository=plan.repository, models=budgets.models) as server:
            rounds.append(_round(budgets, plan=plan, server=server, number=number))
    return [_finding(*where, limit=limit, rounds=rounds) for where, limit in _limits(budgets)]


@contextmanager
def running(version: Version, *, repository: Path, models: Sequence[str]) -> Iterator[Running]:
    """A server of that version, once it has answered a request for each of the models."""
    begin_s = time.monotonic()
    with gateway(repository, python=version.python, checkout=version.checkout) as ready:
        url = f"127.0.0.1:{ready['grpc_port']}"
        for model in models:
            eventloop.run(_first_answer(url, model=model))
        yield Running(
            url=url,
            process_id=int(ready["pid"]),
            metrics_port=int(ready["metrics_port"]),
            cold_start_s=time.monotonic() - begin_s,
        )


async def _first_answer(url: str, *, model: str) -> None:
    connection = connect(protocol="grpc", url=url, model=model, version="")
    try:
        message = await message_for(connection, model=model, batch_size=1)
        await connection.ask(message, timeout_s=_TIMEOUT_S)
    finally:
        await connection.close()


async def message_for(connection: Any, *, model: str, batch_size: int) -> Message:
    """A random batch for a model of the server behind the connection."""
    metadata, config = await connection.read_metadata(), await connection.read_config()
    served = served_model(metadata, version="", config=config)
    served.check_batch_size(batch_size)
    generator = np.random.default_rng([0, batch_size])
    batch = random_batch(served, batch_size=batch_size, generator=generator)
    return request(batch, protocol="grpc", model=model)


@dataclass(frozen=True)
class _Figure:
    value: float
    low: float | None
    high: float | None
    note: str = ""


def _round(
    budgets: Budgets, *, plan: Plan, server: Running, number: int
) -> dict[tuple[str, str, str], _Figure]:
    """Every figure that has a limit, by model, scenario and key."""
    found: dict[tuple[str, str, str], _Figure] = {}
    if "cold_start_s" in budgets.server:
        found["", "", "cold_start_s"] = _exact(server.cold_start_s)
    if "memory_mib" in budgets.server:
        found["", "", "memory_mib"] = _exact(resident_mib(server.process_id))
    if budgets.load_times_s:
        loads = load_times_s(server.metrics_port)
        for model in budgets.load_times_s:
            if model not in loads:
                raise StepFailed(f"the server tells no time to load of model {model!r}")
            found[model, "", "load_time_s"] = _exact(loads[model])
    for budget in budgets.scenarios:
        run = _measure(budget, plan=plan, url=server.url, seed=plan.seed + number)
        for key in budget.limits:
            found[budget.model, budget.scenario, key] = _figure(run, key=key)
    return found


def _measure(budget: ScenarioBudget, *, plan: Plan, url: str, seed: int) -> RunResult:
    settings = LoadtestSettings(
        url=url,
        protocol="grpc",
        model=budget.model,
        load=load_of(budget),
        duration_s=plan.duration_s,
        warmup_s=_WARMUP_S,
        batch_sizes=(int(budget.load.get("batch_size", 1)),),
        seed=seed,
        repository=plan.repository,
        request_timeout_s=_TIMEOUT_S,
        min_requests=1,
    )
    (run,) = eventloop.run(measurement.measure(settings, announce=lambda _: None))
    return run


def load_of(budget: ScenarioBudget) -> Load:
    """The load that a scenario stands for."""
    if budget.scenario == SERVER:
        return OpenLoop(budget.load["rate_per_s"])
    concurrency = _OFFLINE_CONCURRENCY if budget.scenario == OFFLINE else 1
    return ClosedLoop(int(budget.load.get("concurrency", concurrency)))


def _figure(run: RunResult, *, key: str) -> _Figure:
    note = "; ".join(run.reasons)
    checked = run.checked
    if run.recording.failures or run.recording.unanswered or (checked and checked.wrong):
        return _Figure(run.latency.percentiles["p50"].value, None, None, note)
    percent, _, unit = key.partition("_")
    if key == "throughput_per_s":
        return _exact(run.to_json()["throughput"]["samples_per_s"], note=note)
    if key == "share_of_peak":
        share = run.beside.share_of_peak
        return _exact(share, note=note) if share is not None else _unknown(run)
    found = run.latency.percentiles[percent]
    if unit == "ms":
        return _Figure(found.value, found.low, found.high, note)
    floor_ms = run.beside.floor_ms
    if not floor_ms:
        return _unknown(run)
    low, high = (each and each / floor_ms for each in (found.low, found.high))
    return _Figure(found.value / floor_ms, low, high, note)


def _exact(value: float, *, note: str = "") -> _Figure:
    return _Figure(value, value, value, note)


def _unknown(run: RunResult) -> _Figure:
    return _Figure(0.0, None, None, run.beside.note or "the model's cost is not known")


def _limits(budgets: Budgets) -> Iterator[tuple[tuple[str, str, str], float]]:
    for key, limit in budgets.server.items():
        yield ("", "", key), limit
    for model, limit in budgets.load_times_s.items():
        yield (model, "", "load_time_s"), limit
    for budget in budgets.scenarios:
        for key, limit in budget.limits.items():
            yield (budget.model, budget.scenario, key), limit


def _finding(
    model: str,
    scenario: str,
    key: str,
    *,
    limit: float,
    rounds: Sequence[Mapping[tuple[str, str, str], _Figure]],
) -> Finding:
    """The median of the rounds; its interval spans those of all rounds."""
    figures = [found[model, scenario, key] for found in rounds]
    lows, highs = [each.low for each in figures], [each.high for each in figures]
    known = None not in lows and None not in highs
    low = min(each for each in lows if each is not None) if known else None
    high = max(each for each in highs if each is not None) if known else None
    least = key in AT_LEAST
    verdict = judged(low=low, high=high, limit=limit, least=least)
    note = next((each.note for each in figures if each.note), "")
    if verdict == MISSED and note:
        verdict = UNSURE  # what disturbs a run makes it slower, never faster
    if verdict == UNSURE:
        wish = "more rounds or a quieter machine would settle it"
        if not known and not note:
            wish = "too few requests for an interval: a longer --duration would settle it"
        note = f"{note}; {wish}" if note else wish
    return Finding(
        model=model,
        scenario=scenario,
        key=key,
        limit=limit,
        least=least,
        value=float(np.median([each.value for each in figures])),
        low=low,
        high=high,
        verdict=verdict,
        note=note if verdict != HELD else "",
    )


def resident_mib(process_id: int) -> float:
    """The resident memory of a process: VmRSS of proc(5)."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise StepFailed(f"process {process_id} tells no resident memory")


def load_times_s(metrics_port: int) -> dict[str, float]:
    """Seconds that each model took to load, from the metrics of the server."""
    url = f"http://127.0.0.1:{metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        text = answer.read().decode()
    found: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if line.startswith("nv_model_load_duration_secs{"):
            labels, _, value = line.rpartition(" ")
            name = labels.partition('model="')[2].partition('"')[0]
            found[name] = max(found[name], float(value))
    return dict(found)
