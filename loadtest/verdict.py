"""Whether a run measured what it was meant to: VALID, or INVALID with its reasons."""

import numpy as np

from loadtest.correctness import Checked
from loadtest.recording import Recording, Times
from loadtest.schedule import ClosedLoop, Load, OpenLoop
from loadtest.steadiness import steadiness

MIN_REQUESTS = 100
_LAG_SHARE = 0.25  # of the p99 latency; a larger share says more of the client than of the server
_MS_PER_NS = 1e-6
_LAG_OF_NO_MATTER_MS = 0.1
_MOST_BUSY = 0.9  # of a core


def reasons_against(
    recording: Recording,
    *,
    min_requests: int = MIN_REQUESTS,
    load: Load | None = None,
    checked: Checked | None = None,
) -> tuple[str, ...]:
    """Why the figures of this run must not be relied on; empty where they may.

    Drift and noise are looked for where the `load` is meant to be the same all the time.
    """
    answered = int(np.count_nonzero(recording.answered))
    reasons = [_failures(recording), _busy(recording), _late(recording), _wrong(checked)]
    if not answered:
        reasons.append("no request was answered")
    elif answered < min_requests:
        reasons.append(f"only {answered} requests were answered, fewer than {min_requests}")
    if answered:
        reasons.append(_lag(recording))
    if isinstance(load, OpenLoop | ClosedLoop):
        found = steadiness(recording.latencies_ns)
        reasons += found.reasons() if found else []
    return tuple(reason for reason in reasons if reason)


def _wrong(checked: Checked | None) -> str | None:
    if checked is None or not checked.wrong:
        return None
    return (
        f"{checked.wrong} of {checked.compared} answers under load were wrong, "
        f"the first in {checked.first_wrong}"
    )


def _failures(recording: Recording) -> str | None:
    failures = recording.failures
    if not failures:
        return None
    counts = ", ".join(f"{count} x {name}" for name, count in sorted(failures.items()))
    return (
        f"{sum(failures.values())} of {recording.requests} requests failed ({counts}), "
        f"the first with {recording.first_failure}"
    )


def _busy(recording: Recording) -> str | None:
    if recording.client_busy <= _MOST_BUSY:
        return None
    return (
        f"the client is saturated: sending took {recording.client_busy:.0%} of a core, "
        f"over {_MOST_BUSY:.0%}"
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
    if lag_ms <= max(_LAG_SHARE * latency_ms, _LAG_OF_NO_MATTER_MS):
        return None
    return (
        f"the client could not keep its schedule: 1 % of the requests were sent more than "
        f"{lag_ms:.3g} ms late, over {_LAG_SHARE:.0%} of the p99 latency of {latency_ms:.3g} ms"
    )


def _p99(times_ns: Times) -> float:
    return float(np.percentile(times_ns, 99, method="inverted_cdf"))
