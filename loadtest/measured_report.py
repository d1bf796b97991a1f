"""One self-contained page of measurements: several servers, networks and runs side by side."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from loadtest import measured_plots
from loadtest.measured import SINGLE, SWEEP, Measured, Row
from loadtest.report import page_environment

_TEMPLATE = "measured.html.j2"
_OWN_LOAD = 2.0  # threads for each core that server and client alone may keep busy
_SHOWN_PERCENTILES = 4  # networks, from the smallest to the largest


def write(data: Measured, *, path: Path) -> None:
    """Write the page; it needs no other file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(data), encoding="utf-8")


def render(data: Measured) -> str:
    """The page as text."""
    singles = [row for row in data.rows if row.scenario == SINGLE] or list(data.rows)
    singles.sort(key=lambda row: (row.flops or 0, row.label))
    counts = [row.flops for row in singles if row.flops]
    return (
        page_environment()
        .get_template(_TEMPLATE)
        .render(
            data=data,
            singles=singles,
            models=list(dict.fromkeys(row.model for row in data.rows)),
            best=_best(singles),
            busy=_busy(data),
            decades=math.log10(max(counts) / min(counts)) if counts else None,
            predicted=(data.prediction or {}).get("summary"),
            servers=list(dict.fromkeys(row.server for row in data.rows)),
            # Our own drawings; their labels are ours or were escaped by matplotlib.
            plots={name: Markup(text) for name, text in _plots(data, singles).items()},  # noqa: S704
        )
    )


def _busy(data: Measured) -> float | None:
    """The highest load average of the runs where that was more than there are cores."""
    highest = max(row.load_average for row in data.rows)
    return highest if highest > _OWN_LOAD * int(data.environment["cores"]) else None


def _best(singles: list[Row]) -> list[tuple[str, float]]:
    found: dict[str, float] = {}
    for row in singles:
        if row.ratio:
            found[row.label] = min(row.ratio, found.get(row.label, math.inf))
    return list(found.items())


def _plots(data: Measured, singles: list[Row]) -> Mapping[str, str]:
    """The plots that the data have something for; empty text for the others."""
    roof = data.roof
    bounded = [row for row in singles if row.flops and row.floor_ms]
    sweep = [row for row in data.rows if row.scenario in (SINGLE, SWEEP)]
    several = len({row.batch_size for row in sweep}) > 1
    parts = [row for row in singles if row.breakdown]
    left_out: Any = (data.prediction or {}).get("left_out")
    plots = measured_plots
    return {
        "flops": plots.latency_against_flops(bounded, hardware=roof) if bounded else "",
        "roofline": plots.roofline(_at_best(data), hardware=roof) if roof and bounded else "",
        "curves": plots.throughput_curves(data.curves) if data.curves else "",
        "percentiles": plots.percentiles(_spread(singles)),
        "sweep": plots.batch_sweep(sweep) if several else "",
        "breakdown": plots.breakdown_bars(parts) if parts else "",
        "predictions": plots.predictions(left_out) if left_out else "",
    }


def _at_best(data: Measured) -> list[Row]:
    """Of each network on each server the run with the most samples a second."""
    found: dict[tuple[str, str], Row] = {}
    for row in data.rows:
        key = row.label, row.model
        if key not in found or row.samples_per_s > found[key].samples_per_s:
            found[key] = row
    return list(found.values())


def _spread(singles: list[Row]) -> list[Row]:
    """The rows of a few networks, evenly from the least to the most FLOPs."""
    models = list(dict.fromkeys(row.model for row in singles))
    last = len(models) - 1
    count = min(_SHOWN_PERCENTILES, len(models))
    chosen = {models[round(i * last / max(1, count - 1))] for i in range(count)}
    return [row for row in singles if row.model in chosen]
