"""Measurements of several servers or runs, read from JSON and merged for one report.

Read are what `loadtest.bench.campaign` writes, and what `ridgeline loadtest --output` does. Several
files become one page: each keeps its machine, runs carry the label of their server, and of their
file where two files hold the same label.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.hardware import CPU, Hardware
from ridgeline.roof import Roof

FORMAT = "ridgeline measurements 1"
SINGLE, SWEEP, OFFLINE = "single-stream", "multi-stream", "offline"


@dataclass(frozen=True)
class Row:
    """One run: what was asked of which server, and what came of it. Unknown figures are None."""

    label: str
    model: str
    scenario: str
    batch_size: int
    flops: float | None
    bytes_moved: float | None
    p50_ms: float
    p99_ms: float
    p99_low_ms: float | None
    p99_high_ms: float | None
    samples_per_s: float
    floor_ms: float | None
    ratio: float | None
    curve: tuple[tuple[float, float], ...]
    breakdown: Mapping[str, float | None] | None
    verdict: str
    reasons: tuple[str, ...]
    client_us: float
    load_average: float
    server: str
    device: str = CPU

    @property
    def achieved_flops_per_s(self) -> float | None:
        """FLOPs per second at this throughput."""
        return self.flops and self.samples_per_s * self.flops / self.batch_size


@dataclass(frozen=True)
class Measured:
    """Everything that a report shows."""

    rows: tuple[Row, ...]
    curves: tuple[Mapping[str, Any], ...]
    prediction: Mapping[str, Any] | None
    machines: tuple[tuple[str, Hardware], ...]
    environment: Mapping[str, Any]
    commands: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The servers, in the order of the files."""
        return tuple(dict.fromkeys(row.label for row in self.rows))

    @property
    def roof(self) -> Roof | None:
        """That of the device of all runs, in the first file's machine; None if unknown."""
        devices = {row.device for row in self.rows}
        if not self.machines or len(devices) > 1:
            return None
        with contextlib.suppress(NotFound):
            return self.machines[0][1].roof_of(devices.pop())
        return None

    @property
    def below_floor(self) -> tuple[Row, ...]:
        """Runs whose median is below its floor: there must be none."""
        return tuple(row for row in self.rows if row.ratio is not None and row.ratio < 1)

    def to_json(self, tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The data of the page: what was read, merged."""
        return {
            "format": FORMAT,
            "command": "; ".join(self.commands),
            "hardware": tables[0].get("hardware"),
            "environment": dict(self.environment),
            "runs": [run for table in tables for run in table["runs"]],
            "curves": [dict(curve) for curve in self.curves],
            "prediction": self.prediction,
        }


def is_measured(table: Any) -> bool:
    """Whether a file's contents are measurements, rather than the summary of a demo."""
    return isinstance(table, Mapping) and isinstance(table.get("runs"), list)


def read_table(path: Path) -> Any:
    """The JSON in a file. Raises NotFound or InvalidInput."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error


def merge(tables: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Measurements by the names of their files. Raises InvalidInput where one lacks a part."""
    rows: list[Row] = []
    curves: list[Mapping[str, Any]] = []
    machines, commands = [], []
    taken: set[str] = set()
    for name, table in tables.items():
        try:
            found = {_label(run) for run in table["runs"]}
            suffix = f" ({name})" if found & taken else ""
            taken |= found
            rows += [_row(run, label=_label(run) + suffix) for run in table["runs"]]
            curves += [
                {**curve, "label": curve["label"] + suffix} for curve in table.get("curves", ())
            ]
            if table.get("hardware"):
                machines.append((name, Hardware.from_table(table["hardware"])))
            commands.append(str(table.get("command") or f"ridgeline loadtest ({name})"))
        except (KeyError, TypeError, IndexError, ValueError, CorruptData) as error:
            raise InvalidInput(f"{name} does not hold measurements: {error!r}") from error
    if not rows:
        raise InvalidInput(f"{', '.join(tables)}: there is no run to report")
    first = next(iter(tables.values()))
    return Measured(
        rows=tuple(rows),
        curves=tuple(curves),
        prediction=first.get("prediction"),
        machines=tuple(machines),
        environment=first.get("environment") or first["runs"][0]["environment"],
        commands=tuple(commands),
    )


def _label(run: Mapping[str, Any]) -> str:
    return str(run.get("label") or run["server"]["name"])


def _row(run: Mapping[str, Any], *, label: str) -> Row:
    size, cost = int(run["batch_size"]), run["model"]["cost"]
    p50, p99 = run["latency_ms"]["p50"], run["latency_ms"]["p99"]
    floor_ms = run["floor_ms"]
    per_sample = cost and cost["input_bytes_per_sample"] + cost["output_bytes_per_sample"]
    return Row(
        label=label,
        model=run["model"]["name"],
        scenario=run.get("scenario", run["settings"]["load"]["kind"]),
        batch_size=size,
        flops=cost and size * cost["flops_per_sample"],
        bytes_moved=cost and cost["weight_bytes"] + size * per_sample,
        p50_ms=p50["value"],
        p99_ms=p99["value"],
        p99_low_ms=p99["low"],
        p99_high_ms=p99["high"],
        samples_per_s=run["throughput"]["samples_per_s"],
        floor_ms=floor_ms,
        ratio=p50["value"] / floor_ms if floor_ms else None,
        curve=tuple((float(one), float(other)) for one, other in run["latency_curve_ms"]),
        breakdown=run.get("breakdown_ms"),
        verdict=run["verdict"],
        reasons=tuple(run["reasons"]),
        load_average=float(run["environment"]["load_average"]),
        client_us=1e6 * run["client"]["cpu_s_per_request"],
        server=f"{run['server']['name']} {run['server']['version']}",
        device=run["model"].get("device", CPU),
    )
