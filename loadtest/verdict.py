"""Whether a run measured what it was meant to: VALID, or INVALID with its reasons."""

import numpy as np

from loadtest.driver import SATURATED, Recording, Times

VALID, INVALID = "VALID", "INVALID"
MIN_REQUESTS = 100
_LAG_SHARE = 0.25  # of the p99 latency; a larger share says more of the client than of the server
_MS_PER_NS = 1e-6


def reasons_against(recording: Recording, *, min_requests: int = MIN_REQUESTS) -> tuple[str, ...]:
    """Why the figures of this run must not be relied on; empty where they may."""
    answered = int(np.count_nonzero(recording.answered))
    reasons = [recording.stopped, _failures(recording), _saturation(recording), _late(recording)]
    if not answered:
        reasons.append("no request was answered")
    elif answered < min_requests:
        reasons.append(f"only {answered} requests were answered, fewer than {min_requests}")
    if answered:
        reasons.append(_lag(recording))
    return tuple(reason for reason in reasons if reason)


def _failures(recording: Recording) -> str | None:
    failures = {name: count for name, count in recording.failures.items() if name != SATURATED}
    if not failures:
        return None
    counts = ", ".join(f"{count} x {name}" for name, count in sorted(failures.items()))
    return (
        f"{sum(failures.values())} of {recording.requests} requests failed ({counts}), "
        f"the first with {recording.first_failure}"
    )


def _saturation(recording: Recording) -> str | None:
    count = recording.failures.get(SATURATED, 0)
    return (
        f"{count} of {recording.requests} requests were never sent: "
        "as many as allowed were under way (client saturated)"
        if count
        else None
    )


def _late(recording: Recording) -> str | None:
    return (
        f"{recording.unanswered} requests were still unanswered when waiting for them ended"
        if recording.unanswered
        else None
    )


def _lag(recording: Recording) -> str | None:
    lag_ms = _p99(recording.send_lags_ns) * _MS_PER_NS
    latency_ms = _p99(recording.latencies_ns) * _MS_PER_NS
    if lag_ms <= _LAG_SHARE * latency_ms:
        return None
    return (
        f"the client could not keep its schedule: 1 % of the requests were sent more than "
        f"{lag_ms:.3g} ms late, over {_LAG_SHARE:.0%} of the p99 latency of {latency_ms:.3g} ms"
    )


def _p99(times_ns: Times) -> float:
    return float(np.percentile(times_ns, 99, method="inverted_cdf"))
