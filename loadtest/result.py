"""What a run found, as a frozen record that becomes JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadtest.breakdown import Breakdown
from loadtest.correctness import Checked
from loadtest.floor import Beside, beside_floor, roof_under
from loadtest.recording import INVALID, VALID, Recording
from loadtest.schedule import scenario_of
from loadtest.served import ServedModel
from loadtest.settings import LoadtestSettings
from loadtest.statistics import Latency, summarise
from loadtest.steadiness import steadiness
from loadtest.verdict import reasons_against
from ridgeline.cost import ModelCost
from ridgeline.hardware import Hardware

_NS_PER_S, _NS_PER_MS = 1e9, 1e6


@dataclass(frozen=True)
class Target:
    """What was measured: the server's name and version, the model, and what is known of its cost.

    `cost_source` says where the cost was found; `note` why cost or hardware are unknown.
    """

    server: Mapping[str, str]
    model: ServedModel
    cost: ModelCost | None
    cost_source: str | None
    hardware: Hardware | None
    note: str | None


@dataclass(frozen=True)
class RunResult:
    """One run: one batch size, one load. Latencies are those of the answered requests."""

    settings: LoadtestSettings
    batch_size: int
    target: Target
    recording: Recording
    latency: Latency
    beside: Beside
    reasons: tuple[str, ...]
    environment: Mapping[str, Any]
    checked: Checked | None = None
    breakdown: Breakdown | None = None

    @property
    def verdict(self) -> str:
        """VALID, or INVALID where there are reasons."""
        return INVALID if self.reasons else VALID

    def to_json(self) -> dict[str, Any]:
        """The record as JSON holds it: times in the units of their names, None for unknown.

        `latency_ms` holds p50, p90, p95 and p99 as value, low and high; `latency_curve_ms` about
        100 pairs (percentile, ms); `failures` a count for each status.
        """
        return {
            "settings": _settings(self.settings, batch_size=self.batch_size),
            "server": dict(self.target.server),
            "model": _model(self.target),
            "protocol": self.settings.protocol,
            "scenario": scenario_of(self.settings.load, rows=self.batch_size),
            "batch_size": self.batch_size,
            **_latency(self.latency),
            "throughput": _throughput(self.recording, batch_size=self.batch_size),
            "requests": _requests(self.recording),
            "failures": dict(self.recording.failures),
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "floor_ms": self.beside.floor_ms,
            "simple_floor_ms": self.beside.simple_floor_ms,
            "bound_by": self.beside.bound_by,
            "ratio_to_floor": self.beside.ratio_to_floor,
            "achieved_flops_per_s": self.beside.achieved_flops_per_s,
            "share_of_peak": self.beside.share_of_peak,
            "floor_note": self.beside.note,
            "client": _client(self.recording),
            "answers": asdict(self.checked) if self.checked else None,
            "breakdown_ms": _breakdown(self.breakdown),
            "steadiness": _steadiness(self.recording),
            "environment": dict(self.environment),
        }


def run_result(
    recording: Recording,
    *,
    settings: LoadtestSettings,
    batch_size: int,
    target: Target,
    environment: Mapping[str, Any],
    checked: Checked | None = None,
    breakdown: Breakdown | None = None,
) -> RunResult:
    """Judge a recording with at least one answered request, and set it beside the floor."""
    latency = summarise(recording.latencies_ns)
    roof, note = roof_under(target.hardware, device=target.model.device, note=target.note)
    return RunResult(
        settings=settings,
        batch_size=batch_size,
        target=target,
        recording=recording,
        latency=latency,
        beside=beside_floor(
            latencies_ms={name: latency.percentiles[name].value for name in ("p50", "p99")},
            samples_per_s=_throughput(recording, batch_size=batch_size)["samples_per_s"],
            batch_size=batch_size,
            cost=target.cost,
            hardware=roof,
            note=note,
        ),
        reasons=reasons_against(
            recording,
            min_requests=settings.min_requests,
            load=settings.load,
            checked=checked,
        ),
        environment=environment,
        checked=checked,
        breakdown=breakdown,
    )


def raw_arrays(results: Sequence[RunResult]) -> dict[str, Any]:
    """The raw times of several runs, as arrays for one .npz file: `batch<size>_intended_ns` ..."""
    return {
        f"batch{result.batch_size}_{name}": getattr(result.recording, name)
        for result in results
        for name in ("intended_ns", "sent_ns", "done_ns", "answered", "rows")
    }


def _settings(settings: LoadtestSettings, *, batch_size: int) -> dict[str, Any]:
    return {
        "url": settings.url,
        "protocol": settings.protocol,
        "model": settings.model,
        "model_version": settings.model_version or None,
        "load": settings.load.describe(),
        "duration_s": settings.duration_s,
        "warmup_s": settings.warmup_s,
        "batch_size": batch_size,
        "seed": settings.seed,
        "data": " ".join(map(str, settings.data)) or None,
        "request_timeout_s": settings.request_timeout_s,
        "client_core": settings.client_core,
        "min_requests": settings.min_requests,
    }


def _model(target: Target) -> dict[str, Any]:
    model, cost = target.model, target.cost
    return {
        "name": model.name,
        "version": model.version,
        "max_batch_size": model.max_batch_size,
        "device": model.device,
        "inputs": [asdict(tensor) for tensor in model.inputs],
        "outputs": [asdict(tensor) for tensor in model.outputs],
        "cost": cost.summary() if cost else None,
        "cost_source": target.cost_source,
    }


def _latency(latency: Latency) -> dict[str, Any]:
    by_percentile = {
        **{name.removeprefix("p"): row.value for name, row in latency.percentiles.items()},
        "99.9": latency.p999,
        "max": latency.greatest,
    }
    return {
        "latency_ms": {name: asdict(row) for name, row in latency.percentiles.items()},
        "latency_mean_ms": latency.mean,
        "latency_ms_by_percentile": by_percentile,
        "latency_curve_ms": [list(point) for point in latency.curve],
    }


def _throughput(recording: Recording, *, batch_size: int) -> dict[str, float]:
    answered = int(np.count_nonzero(recording.answered))
    requests_per_s = answered / (recording.elapsed_ns / _NS_PER_S)
    rows = batch_size * answered
    if recording.rows is not None:
        rows = int(recording.rows[recording.answered].sum())
    samples_per_s = rows / (recording.elapsed_ns / _NS_PER_S)
    return {"requests_per_s": requests_per_s, "samples_per_s": samples_per_s}


def _requests(recording: Recording) -> dict[str, Any]:
    return {
        "due": recording.requests,
        "answered": int(np.count_nonzero(recording.answered)),
        "failed": sum(recording.failures.values()),
        "unanswered": recording.unanswered,
        "elapsed_s": recording.elapsed_ns / _NS_PER_S,
    }


def _client(recording: Recording) -> dict[str, float]:
    lags_ms = recording.send_lags_ns / _NS_PER_MS
    return {
        "cpu_s_per_request": recording.client_cpu_ns / _NS_PER_S / len(lags_ms),
        "busy_share_of_a_core": recording.client_busy,
        "send_lag_p50_ms": float(np.percentile(lags_ms, 50)),
        "send_lag_p99_ms": float(np.percentile(lags_ms, 99)),
        "send_lag_max_ms": float(lags_ms.max()),
    }


def _breakdown(found: Breakdown | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    table = {name.removesuffix("_ms"): value for name, value in asdict(found).items()}
    return {**table, "total": found.total_ms}


def _steadiness(recording: Recording) -> dict[str, Any] | None:
    found = steadiness(recording.latencies_ns)
    if found is None:
        return None
    return {
        "window_medians_ms": [value / _NS_PER_MS for value in found.medians_ns],
        "warm_from_request": found.warm_from,
        "drift": found.drift,
        "noise": found.noise,
    }
