"""The runs against one server: what it bears, and what it does under more than that."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.bench.overload_servers import ECHO_BYTES, Sample, Target
from ridgeline.errors import StepFailed

IN_FLIGHT = 64
OFFERED = (1.0, 1.5, 2.0, 3.0)  # times the capacity
DEADLINE_MS, MIXED_DEADLINES_MS = 100.0, (20.0, 100.0, 500.0)
_MIXED_OFFERED = 1.5
_RECOVERY = ((3.0, 2.0), (0.5, 2.0))  # times the capacity, seconds
_LONGEST_CAPACITY_S, _WARM_UP_S = 2.0, 0.5
_MOST_CHANGE = 1.5  # of the capacity during a run, before that says more of the machine
_GRPC_CONNECTIONS = 4
_HTTP_CONNECTIONS = 2048  # each carries one request: fewer would shed load in the client
_IDLE_SHARE, _IDLE_S, _MOST_SETTLE_S = 0.05, 0.2, 30.0
_GRACE_S = 60.0


@dataclass(frozen=True)
class Bench:
    """Sends loads to one server; the messages lie in files of `folder`."""

    target: Target
    sample: Sample
    folder: Path
    client_core: int | None

    def closed(
        self, seconds: float, *, in_flight: int = IN_FLIGHT, echo_bytes: int | None = None
    ) -> dict[str, Any]:
        """So many requests in flight, without deadlines; or echoes of so many bytes instead."""
        echo = echo_bytes is not None
        message = (
            self.target.message(self.sample) if echo_bytes is None else self.target.echo(echo_bytes)
        )
        return self._run(
            path=self.target.echo_path if echo else self.target.infer_path,
            classes=[{"message_path": self._file(message)}],
            in_flight=in_flight,
            duration_s=seconds,
            connections=min(in_flight, self._connections(in_flight)),
        )

    def open(
        self, phases: Sequence[tuple[float, float]], *, deadlines_ms: Sequence[float], seed: int
    ) -> dict[str, Any]:
        """Poisson arrivals at these rates, for so many seconds each; the deadlines are drawn."""
        classes = [
            {
                "message_path": self._file(
                    self.target.message(self.sample, deadline_ms=deadline_ms)
                ),
                "deadline_ms": deadline_ms,
            }
            for deadline_ms in deadlines_ms
        ]
        return self._run(
            path=self.target.infer_path,
            classes=classes,
            phases=phases,
            connections=self._connections(_HTTP_CONNECTIONS),
            seed=seed,
        )

    def _connections(self, http: int) -> int:
        return http if self.target.protocol == "http" else _GRPC_CONNECTIONS

    def _file(self, message: bytes) -> str:
        path = self.folder / f"message-{len(list(self.folder.iterdir()))}"
        path.write_bytes(message)
        return str(path)

    def _run(self, **spec: Any) -> dict[str, Any]:
        """One run of the load generator in a process of its own, and the server's CPU time."""
        whole = {
            "protocol": self.target.protocol,
            "port": self.target.port,
            "core": self.client_core,
            **spec,
        }
        settle(self.target)
        before_s = cpu_s(self.target.process_ids())
        done = subprocess.run(
            [sys.executable, "-m", "loadtest.wire.generator", "--json-spec", "-"],
            input=json.dumps(whole).encode(),
            stdout=subprocess.PIPE,
            check=False,
            timeout=_GRACE_S
            + spec.get("duration_s", 0)
            + sum(s for _, s in spec.get("phases", ())),
        )
        if done.returncode:
            load = spec.get("phases") or f"{spec['in_flight']} in flight"
            raise StepFailed(
                f"the load generator ended with exit code {done.returncode}: {self.target.name}, "
                f"{spec['path']}, {load}, processes {self.target.process_ids()}"
            )
        run: dict[str, Any] = json.loads(done.stdout)
        return run | {"server_cpu_s": cpu_s(self.target.process_ids()) - before_s}


def cpu_s(process_ids: Sequence[int]) -> float:
    """CPU seconds that these processes have used so far, the kernel's for them included."""
    ticks = 0
    for number in process_ids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
            fields = text.rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def settle(target: Target) -> None:
    """Wait until the server has nothing to do any more, for half a minute at most."""
    end_s = time.monotonic() + _MOST_SETTLE_S
    while time.monotonic() < end_s:
        before_s = cpu_s(target.process_ids())
        time.sleep(_IDLE_S)
        if cpu_s(target.process_ids()) - before_s <= _IDLE_SHARE * _IDLE_S:
            return


def _answering(bench: Bench, seconds: float) -> dict[str, Any]:
    """A closed loop. Raises StepFailed where nothing is answered."""
    run = bench.closed(seconds)
    if not run["answered_per_s"]:
        raise StepFailed(f"{bench.target.name} answered nothing: {run['refused']}")
    return run


def brief_capacity_per_s(bench: Bench) -> float:
    """What a server bears, roughly."""
    bench.closed(_WARM_UP_S)
    return float(bench.closed(_LONGEST_CAPACITY_S)["answered_per_s"])


def measure(
    bench: Bench, *, duration_s: float, seed: int, least_capacity_per_s: float = 0.0
) -> dict[str, Any]:
    """One round over one server that runs: the raw runs. Raises StepFailed where none is answered.

    Runs at multiples of the capacity, `OFFERED`, and one with deadlines mixed, last `duration_s`.
    Each stands between two measurements of the capacity, and is compared with the mean of both
    (`reference_per_s`): shared machines change their speed within seconds. Tuning must not make an
    overload small: `least_capacity_per_s` is what the server bears without. (A closed loop of 64
    brings Triton nearly to a halt where its queue has a bound or a timeout.)
    """
    short_s = min(duration_s, _LONGEST_CAPACITY_S)
    bench.closed(min(short_s, _WARM_UP_S))
    closed = [_answering(bench, short_s)]

    def capacity_per_s() -> float:
        return max(float(closed[-1]["answered_per_s"]), least_capacity_per_s)

    def offer(times: float, *, deadlines_ms: Sequence[float] = (DEADLINE_MS,)) -> dict[str, Any]:
        before_per_s = capacity_per_s()
        phases = [(times * before_per_s, duration_s)]
        run = bench.open(phases, deadlines_ms=deadlines_ms, seed=seed)
        closed.append(_answering(bench, short_s))
        after_per_s = capacity_per_s()
        if max(before_per_s, after_per_s) > _MOST_CHANGE * min(before_per_s, after_per_s):
            changed = f"the capacity changed from {before_per_s:,.0f} to {after_per_s:,.0f}/s"
            run["reasons"].append(f"{changed} meanwhile, by more than a factor of {_MOST_CHANGE}")
        return {
            "offered": times,
            "reference_per_s": (before_per_s + after_per_s) / 2,
            **run,
        }

    return {
        "echo": bench.closed(short_s, echo_bytes=ECHO_BYTES),
        "rates": {f"{times:g}": offer(times) for times in OFFERED},
        "mixed": offer(_MIXED_OFFERED, deadlines_ms=MIXED_DEADLINES_MS),
        "recovery": bench.open(
            [(times * capacity_per_s(), seconds) for times, seconds in _RECOVERY],
            deadlines_ms=(DEADLINE_MS,),
            seed=seed,
        ),
        "capacity": closed,
    }
