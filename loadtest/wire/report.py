"""Figures of one run over the wire, from its entries; ends VALID or INVALID with the reasons."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.recording import INVALID, VALID
from loadtest.wire.ledger import (
    ANSWERED,
    Entries,
    Times,
    name_of,
)

_NS_PER_MS, _NS_PER_S, _US_PER_S = 1_000_000, 1_000_000_000, 1_000_000
_BIN_NS = 100 * _NS_PER_MS
_MAX_BUSY = 0.9  # of a core: above, the client may be what is measured
_MAX_LAG_SHARE = 0.2  # of the smallest deadline


@dataclass(frozen=True)
class ClientCost:
    """What sending cost: CPU of the whole run, busy share of its core while requests were due.

    `lags_ns` holds how long after its intended time each request was handed to the connection.
    """

    cpu_s: float
    busy: float
    lags_ns: Times

    @property
    def lag_p99_ms(self) -> float:
        """The client's own delay, in all but 1 % of the requests."""
        return _p(self.lags_ns, 99) or 0.0


def summarise(
    entries: Entries,
    *,
    client: ClientCost,
    duration_s: float,
    closed: bool = False,
    recovers_from_s: float | None = None,
) -> dict[str, Any]:
    """The figures as JSON. `closed` says that it was a closed loop, whose rate is that of answers
    within the run; `recovers_from_s` is when an overload ended, where there was one.
    """
    statuses, on_time = entries.statuses, entries.on_time
    refused = statuses > ANSWERED
    waits_ns = (entries.done_ns - entries.sent_ns)[refused]
    sent = int(np.count_nonzero(entries.sent_ns))
    answered = int(np.count_nonzero(statuses == ANSWERED))
    reasons = reasons_against(entries, client=client)
    found: dict[str, Any] = {
        "verdict": INVALID if reasons else VALID,
        "reasons": reasons,
        "duration_s": duration_s,
        "requests": len(statuses),
        "sent": sent,
        "answered": answered,
        "on_time": int(np.count_nonzero(on_time)),
        "late": int(np.count_nonzero((statuses == ANSWERED) & ~on_time)),
        "refused": _by_name(statuses[refused]),
        "failed": _by_name(statuses[statuses < ANSWERED]),
        "answered_per_s": (
            answers_per_s(entries, duration_s=duration_s) if closed else answered / duration_s
        ),
        "on_time_per_s": int(np.count_nonzero(on_time)) / duration_s,
        "refused_per_s": int(np.count_nonzero(refused)) / duration_s,
        "refusal_p50_ms": _p(waits_ns, 50),
        "refusal_p99_ms": _p(waits_ns, 99),
        "classes": [_class(entries, kind=kind) for kind in range(len(entries.deadlines_ns))],
        "client": {
            "cpu_us_per_request": _US_PER_S * client.cpu_s / max(1, sent),
            "busy": client.busy,
            "send_lag_p99_ms": client.lag_p99_ms,
        },
        "series": series(entries),
    }
    if recovers_from_s is not None:
        found["recovery_ms"] = recovery_ms(
            entries.intended_ns, on_time=on_time, from_ns=int(recovers_from_s * _NS_PER_S)
        )
    return found


def reasons_against(entries: Entries, *, client: ClientCost) -> list[str]:
    """Why the figures say more of the client than of the server; empty where they do not."""
    reasons = []
    deadlines_ms = [deadline_ns / _NS_PER_MS for deadline_ns in entries.deadlines_ns if deadline_ns]
    if deadlines_ms and client.lag_p99_ms > _MAX_LAG_SHARE * min(deadlines_ms):
        reasons.append(
            f"1 % of the requests left the client more than {client.lag_p99_ms:.3g} ms late, over "
            f"{_MAX_LAG_SHARE:.0%} of the smallest deadline of {min(deadlines_ms):g} ms"
        )
    if client.busy > _MAX_BUSY:
        reasons.append(f"the client's core was {client.busy:.0%} busy, over {_MAX_BUSY:.0%}")
    if not np.any(entries.statuses == ANSWERED):
        reasons.append("no request was answered")
    return reasons


def answers_per_s(entries: Entries, *, duration_s: float) -> float:
    """The rate of answers within the run: the slope of their number over time, by least squares.

    Answers after the end took time that is not counted, and what is half done at the end is no
    answer: dividing a number by the duration errs by a batch either way, which matters where a
    batch takes a second. A slope does not, not even where answers come in bursts.
    """
    done_ns = np.sort(entries.done_ns[entries.statuses == ANSWERED])
    done_s = done_ns[done_ns <= duration_s * _NS_PER_S] / _NS_PER_S
    times_s = done_s - done_s.mean() if len(done_s) else done_s
    spread = float(times_s @ times_s)
    if not spread:
        return len(done_s) / duration_s
    return float(times_s @ np.arange(len(times_s))) / spread


def recovery_ms(
    intended_ns: Times, *, on_time: npt.NDArray[np.bool_], from_ns: int
) -> float | None:
    """How long after `from_ns` the last request was due that was not answered on time.

    0 where all were answered on time; None where no bin of 100 ms followed in which all were.
    """
    failed_ns = intended_ns[(intended_ns >= from_ns) & ~on_time]
    last_due_ns = int(intended_ns.max(initial=0))
    if not len(failed_ns):
        return 0.0 if last_due_ns >= from_ns else None
    last_ns = int(failed_ns.max())
    return None if last_due_ns - last_ns < _BIN_NS else (last_ns - from_ns) / _NS_PER_MS


def series(entries: Entries) -> Mapping[str, Any]:
    """Per 100 ms: how many requests were due, and how many of those were answered on time."""
    bins = entries.intended_ns // _BIN_NS
    count = int(bins.max(initial=-1)) + 1
    on_time = np.bincount(bins[entries.on_time], minlength=count)
    return {
        "bin_ms": _BIN_NS // _NS_PER_MS,
        "due": np.bincount(bins, minlength=count).tolist(),
        "on_time": on_time.tolist(),
    }


def _class(entries: Entries, *, kind: int) -> dict[str, Any]:
    """The requests of one deadline class; latencies of those answered, from the intended time."""
    own = entries.kinds == kind
    answered = own & (entries.statuses == ANSWERED)
    latencies_ns = (entries.done_ns - entries.intended_ns)[answered]
    on_time = int(np.count_nonzero(own & entries.on_time))
    deadline_ns = entries.deadlines_ns[kind]
    return {
        "deadline_ms": deadline_ns / _NS_PER_MS if deadline_ns else None,
        "requests": int(np.count_nonzero(own)),
        "on_time": on_time,
        "late": int(np.count_nonzero(answered)) - on_time,
        "refused": int(np.count_nonzero(own & (entries.statuses > ANSWERED))),
        "failed": int(np.count_nonzero(own & (entries.statuses < ANSWERED))),
        "p50_ms": _p(latencies_ns, 50),
        "p99_ms": _p(latencies_ns, 99),
    }


def _by_name(statuses: Times) -> dict[str, int]:
    return dict(sorted(Counter(name_of(status) for status in statuses.tolist()).items()))


def _p(times_ns: Times, percent: float) -> float | None:
    """A percentile in ms, None for no times."""
    if not len(times_ns):
        return None
    return float(np.percentile(times_ns, percent, method="inverted_cdf")) / _NS_PER_MS
