"""What an overload says of a server: shares of its capacity, and medians over the rounds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_US_PER_S = 1e6


def remaining_per_s(capacity_per_s: float, *, refusals_per_s: float, echo_s: float) -> float:
    """What is left of the capacity when every refusal costs as much as a bare echo; 0 at least.

    `echo_s` is the CPU time of the server for a call whose message it drops: no front end could
    refuse for less than it takes to read and answer.
    """
    return max(0.0, capacity_per_s * (1 - refusals_per_s * echo_s))


def share(part: float, *, of: float) -> float | None:
    """part / of; None of nothing."""
    return part / of if of else None


def rate_figures(run: Mapping[str, Any], *, echo_s: float) -> dict[str, Any]:
    """One run at `offered` times the capacity, which was `reference_per_s` around it.

    Shares are of the capacity, or of what came where that was less: random arrivals at the capacity
    of before may be fewer than what turns out to be the capacity around.
    """
    capacity_per_s, came_per_s = run["reference_per_s"], run["requests"] / run["duration_s"]
    remaining = remaining_per_s(capacity_per_s, refusals_per_s=run["refused_per_s"], echo_s=echo_s)
    return {
        "offered": run["offered"],
        "on_time_per_s": run["on_time_per_s"],
        "on_time_share": share(run["on_time_per_s"], of=min(capacity_per_s, came_per_s)),
        "remaining_per_s": remaining,
        "on_time_to_remaining": share(run["on_time_per_s"], of=min(remaining, came_per_s)),
        "refused_per_s": run["refused_per_s"],
        "refusal_p50_ms": run["refusal_p50_ms"],
        "refusal_p99_ms": run["refusal_p99_ms"],
        "server_cpu_us_per_request": _US_PER_S * run["server_cpu_s"] / max(1, run["sent"]),
        "classes": {
            f"{found['deadline_ms']:g}": {
                "on_time_share": share(found["on_time"], of=found["requests"]),
                "p50_ms": found["p50_ms"],
                "p99_ms": found["p99_ms"],
            }
            for found in run["classes"]
        },
    }


def middle_run(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The run with the median throughput."""
    return sorted(runs, key=lambda run: float(run["answered_per_s"]))[len(runs) // 2]


def round_figures(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one round over one server, from the raw runs of `overload.measure`."""
    middle, echo = middle_run(raw["capacity"]), raw["echo"]
    closed = middle["answered_per_s"]
    echo_s = echo["server_cpu_s"] / max(1, echo["answered"])
    figures = {
        "capacity_per_s": closed,
        "server_cpu_us": _US_PER_S * middle["server_cpu_s"] / max(1, middle["answered"]),
        "client_cpu_us": middle["client"]["cpu_us_per_request"],
        "p50_ms": middle["classes"][0]["p50_ms"],
        "echo_per_s": echo["answered_per_s"],
        "echo_cpu_us": _US_PER_S * echo_s,
        "recovery_ms": raw["recovery"]["recovery_ms"],
    }
    rates = {label: rate_figures(run, echo_s=echo_s) for label, run in raw["rates"].items()}
    return figures | {"rates": rates, "mixed": rate_figures(raw["mixed"], echo_s=echo_s)}


def medians(rounds: Sequence[Any]) -> Any:
    """The median of each figure; one that is missing (None) counts as endless.

    So a server that recovered in one round of three has not recovered.
    """
    if isinstance(rounds[0], Mapping):
        return {key: medians([each[key] for each in rounds]) for key in rounds[0]}
    middle = statistics.median(math.inf if value is None else value for value in rounds)
    return middle if math.isfinite(middle) else None


def complaints(raw: Mapping[str, Any]) -> list[str]:
    """Which runs of a round were INVALID, and why."""
    runs = {f"{label} x": run for label, run in raw["rates"].items()}
    runs |= {f"capacity {place}": run for place, run in enumerate(raw["capacity"], start=1)}
    runs |= {name: raw[name] for name in ("echo", "mixed", "recovery")}
    return [f"{name}: {reason}" for name, run in runs.items() for reason in run["reasons"]]
