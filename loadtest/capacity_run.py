"""The search for a server's capacity, on a real server."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from loadtest import environment
from loadtest.capacity import Probe, search
from loadtest.measurement import (
    Announce,
    ask_alone,
    check_answers,
    put_load,
    refuse_silence,
    target_of,
)
from loadtest.preparation import prepare
from loadtest.protocols import connect
from loadtest.recording import Recording
from loadtest.schedule import ClosedLoop, OpenLoop
from loadtest.settings import LoadtestSettings
from loadtest.statistics import summarise

_OFFLINE = 32  # requests at a time, to see roughly what the server bears
_NS_PER_S = 1e9
_SHARES = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 1.0)


async def measure_capacity(
    settings: LoadtestSettings, *, budget_ms: float, announce: Announce
) -> dict[str, Any]:
    """The largest Poisson rate whose p99 holds the budget: `Capacity.to_json`, and the target.

    Raises as `measure`.
    """
    connection = connect(
        protocol=settings.protocol,
        url=settings.url,
        model=settings.model,
        version=settings.model_version,
    )
    try:
        target = await target_of(connection, settings=settings, announce=announce)
        prepared = prepare(settings, model=target.model, batch_size=settings.batch_sizes[0])
        expected = await ask_alone(connection, prepared, settings=settings, model=target.model)
        offline = replace(settings, load=ClosedLoop(_OFFLINE))
        most = await put_load(prepared.requests, settings=offline, for_s=settings.warmup_s or 1.0)
        refuse_silence(most.recording, phase="the warm-up")
        estimate_per_s = float(np.count_nonzero(most.recording.answered)) / (
            most.recording.elapsed_ns / _NS_PER_S
        )

        async def attempt(rate_per_s: float, duration_s: float) -> Probe:
            announce(f"{rate_per_s:,.0f} requests/s for {duration_s:g} s ...")
            load = replace(settings, load=OpenLoop(rate_per_s))
            generated = await put_load(prepared.requests, settings=load, for_s=duration_s)
            probe = _probe(generated.recording, rate_per_s=rate_per_s, duration_s=duration_s)
            checked = check_answers(generated, prepared, expected=expected)
            if checked.wrong:
                announce(f"{checked.wrong} answers were wrong: {checked.first_wrong}")
            return replace(probe, wrong=checked.wrong)

        found = await search(
            attempt,
            budget_ms=budget_ms,
            estimate_per_s=estimate_per_s,
            duration_s=settings.duration_s,
        )
    finally:
        await connection.close()
    return found.to_json() | {
        "estimate_per_s": estimate_per_s,
        "server": dict(target.server),
        "model": target.model.name,
        "protocol": settings.protocol,
        "environment": environment.describe(),
    }


async def latency_curve(settings: LoadtestSettings) -> list[dict[str, Any]]:
    """Poisson at rising shares of what the closed loop of the settings reaches: rate, latency.

    Raises as `measure`.
    """
    connection = connect(
        protocol=settings.protocol,
        url=settings.url,
        model=settings.model,
        version=settings.model_version,
    )
    try:
        target = await target_of(connection, settings=settings, announce=lambda _: None)
        prepared = prepare(settings, model=target.model, batch_size=settings.batch_sizes[0])
        most = await put_load(prepared.requests, settings=settings, for_s=settings.duration_s)
        refuse_silence(most.recording, phase="the run")
        limit_per_s = float(np.count_nonzero(most.recording.answered)) / (
            most.recording.elapsed_ns / _NS_PER_S
        )
        points = []
        for share in _SHARES:
            load = replace(settings, load=OpenLoop(share * limit_per_s))
            found = await put_load(prepared.requests, settings=load, for_s=settings.duration_s)
            probe = _probe(
                found.recording, rate_per_s=share * limit_per_s, duration_s=settings.duration_s
            )
            points.append({"share": share, **asdict(probe)})
    finally:
        await connection.close()
    return points


def _probe(recording: Recording, *, rate_per_s: float, duration_s: float) -> Probe:
    if not recording.answered.any():
        return Probe(rate_per_s, 0.0, 0.0, 0.0, None, None, recording.requests, duration_s)
    latency = summarise(recording.latencies_ns)
    p99 = latency.percentiles["p99"]
    return Probe(
        rate_per_s=rate_per_s,
        answered_per_s=latency.count / (recording.elapsed_ns / _NS_PER_S),
        p50_ms=latency.percentiles["p50"].value,
        p99_ms=p99.value,
        p99_low_ms=p99.low,
        p99_high_ms=p99.high,
        failed=sum(recording.failures.values()) + recording.unanswered,
        duration_s=duration_s,
    )
