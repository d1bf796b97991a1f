"""The plots of a report of measurements, as SVG. Servers differ in marker and line, not in colour
alone; ratios are told by the lightness of one map (cividis), which every eye and printer keeps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from loadtest.measured import Row
from loadtest.plots import _STYLE, BLUE, GREEN, GREY, ORANGE, _plain, _svg
from ridgeline.roof import Roof

_MARKERS, _LINES = "osD^v", ("-", "--", ":", "-.", (0, (1, 2)))
_COLOURS = (BLUE, ORANGE, GREEN, GREY, "#CC79A7")
# The parts of a latency, from the bottom up: name, text, colour (Okabe and Ito), hatch.
_PARTS = (
    ("compute", "compute", "#0072B2", ""),
    ("batch_wait", "waiting for the batch's others", "#56B4E9", "//"),
    ("packing", "packing", "#F0E442", ".."),
    ("queue", "queue", "#E69F00", "\\\\"),
    ("protocol", "protocol and kernel", "#009E73", "xx"),
    ("client", "client", "#BBBBBB", ""),
)


def latency_against_flops(rows: Sequence[Row], *, hardware: Roof | None) -> str:
    """Medians of single samples over FLOPs, both axes logarithmic, with the floor below."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        known = [row for row in rows if row.flops and row.ratio]
        norm = LogNorm(1, max([10.0, *(row.ratio or 1 for row in known)]))
        for label, marker in _styles(known, _MARKERS):
            own = [row for row in known if row.label == label]
            points = axes.scatter(
                [_number(row.flops) for row in own],
                [row.p50_ms for row in own],
                c=[_number(row.ratio) for row in own],
                cmap="cividis_r",
                norm=norm,
                marker=marker,
                s=60,
                edgecolors="#1a1a1a",
                linewidths=0.8,
                label=label,
                zorder=3,
            )
            figure.colorbar(points, ax=axes, label="median / floor") if marker == "o" else None
        floors = sorted({(row.flops, row.floor_ms) for row in known})
        axes.plot(*zip(*floors, strict=True), "_", color=ORANGE, markersize=14, label="floor")
        if hardware:
            flops = np.array([floors[0][0], floors[-1][0]], dtype=float)
            axes.plot(
                flops,
                1e3 * flops / hardware.peak_flops_per_s,
                ":",
                color=GREY,
                label="FLOPs / peak",
            )
        _name_models(axes, known)
        axes.set(xlabel="FLOPs of one sample", ylabel="median latency, ms")
        axes.set(xscale="log", yscale="log")
        axes.set_ylim(top=8 * axes.get_ylim()[1])  # room for the names
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.legend(loc="lower right")
        return _svg(figure, name="latency-against-flops")


def roofline(rows: Sequence[Row], *, hardware: Roof) -> str:
    """Achieved FLOP/s over arithmetic intensity, under the machine's roofs."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        known = [row for row in rows if row.flops and row.bytes_moved]
        intensities = [
            row.flops / row.bytes_moved for row in known if row.flops and row.bytes_moved
        ]
        span = np.geomspace(0.5 * min(intensities), 2 * max(intensities), 200)
        roofs = (
            ("memory", hardware.memory_bandwidth_bytes_per_s, "--"),
            ("nearest cache", max(rate for _, rate in hardware.bandwidth_by_working_set), "-"),
        )
        for name, rate, style in roofs:
            roof = np.minimum(hardware.peak_flops_per_s, rate * span) / 1e9
            axes.plot(span, roof, style, color=GREY, label=f"roof with the {name}")
        for (label, marker), colour in zip(_styles(known, _MARKERS), _COLOURS, strict=False):
            own = [row for row in known if row.label == label]
            axes.plot(
                [_number(row.flops) / _number(row.bytes_moved) for row in own],
                [(row.achieved_flops_per_s or 0) / 1e9 for row in own],
                marker,
                color=colour,
                label=f"{label}, at its best",
            )
        _axes(axes, x="FLOPs per byte that must move", y="GFLOP/s", legend="lower right")
        return _svg(figure, name="roofline")


def throughput_curves(curves: Sequence[Mapping[str, Any]]) -> str:
    """p50 and p99 over the rate that was answered; the knee is where they turn upwards."""
    models = list(dict.fromkeys(curve["model"] for curve in curves))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        for axes, model in zip(np.atleast_1d(figure.subplots(1, len(models))), models, strict=True):
            own = [curve for curve in curves if curve["model"] == model]
            for curve, colour, marker in zip(own, _COLOURS, _MARKERS, strict=False):
                points = [point for point in curve["points"] if point["p50_ms"] > 0]
                rates = [point["answered_per_s"] for point in points]
                for key, line in (("p50_ms", "-"), ("p99_ms", "--")):
                    name = f"{curve['label']}, {key.removesuffix('_ms')}"
                    values = [point[key] for point in points]
                    axes.plot(rates, values, line, marker=marker, color=colour, label=name)
                if (knee := knee_of(points)) is not None:
                    axes.axvline(rates[knee], color=colour, linewidth=0.8, linestyle=":")
            axes.set(title=model, xlabel="answers per second", ylabel="latency, ms", yscale="log")
            axes.yaxis.set_major_formatter(FuncFormatter(_plain))
            axes.set_xlim(left=0)
        figure.axes[0].legend(fontsize=8)
        return _svg(figure, name="throughput-curves")


def knee_of(points: Sequence[Mapping[str, Any]]) -> int | None:
    """The last point whose p99 is at most three times that of the lightest load."""
    if not points:
        return None
    within = [i for i, each in enumerate(points) if each["p99_ms"] <= 3 * points[0]["p99_ms"]]
    return max(within)


def percentiles(rows: Sequence[Row]) -> str:
    """Latency over the share of requests that were answered at least so fast, spaced in nines."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        styles = dict(_styles(rows, _LINES))
        models = list(dict.fromkeys(row.model for row in rows))
        for row in rows:
            colour = _COLOURS[models.index(row.model) % len(_COLOURS)]
            nines = [-np.log10(1 - percent / 100) for percent, _ in row.curve]
            values = [value for _, value in row.curve]
            name = f"{row.model}, {row.label}"
            axes.plot(nines, values, linestyle=styles[row.label], color=colour, label=name)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.30103, 1, 2, 3]))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{100 * (1 - 10.0**-value):.4g} %")
        )
        axes.set(xlabel="share of requests", ylabel="latency, ms", yscale="log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.legend(fontsize=8, ncols=2)
        return _svg(figure, name="percentiles")


def batch_sweep(rows: Sequence[Row]) -> str:
    """Median over batch size beside the floor, a panel for each network, by rising FLOPs."""
    rising = sorted(rows, key=lambda row: (row.flops or 0) / row.batch_size)
    models = list(dict.fromkeys(row.model for row in rising))
    columns = 4
    lines = -(-len(models) // columns)
    with matplotlib.rc_context({**_STYLE, "font.size": 8}):
        figure = Figure(figsize=(8, 2.1 * lines), layout="constrained")
        panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
        for axes, model in zip(panels, models, strict=False):
            own = sorted(
                (row for row in rows if row.model == model), key=lambda row: row.batch_size
            )
            for (label, marker), colour in zip(_styles(rows, _MARKERS), _COLOURS, strict=False):
                mine = [row for row in own if row.label == label]
                sizes = [row.batch_size for row in mine]
                axes.plot(sizes, [row.p50_ms for row in mine], marker + "-", color=colour, ms=3)
            floors = sorted({(row.batch_size, row.floor_ms) for row in own if row.floor_ms})
            if floors:
                axes.plot(*zip(*floors, strict=True), ":", color="#1a1a1a")
            axes.set(title=model, xscale="log", yscale="log")
            axes.xaxis.set_major_locator(FixedLocator(sorted({row.batch_size for row in own})))
            axes.xaxis.set_minor_locator(NullLocator())
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(_plain))
                axis.set_minor_formatter(NullFormatter())
        for axes in panels[len(models) :]:
            axes.set_axis_off()
        figure.supxlabel("batch size")
        figure.supylabel("median, ms")
        return _svg(figure, name="batch-sweep")


def breakdown_bars(rows: Sequence[Row]) -> str:
    """The parts of the mean latency as shares, beside the floor's share."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.6 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        names = [f"{row.model}, {row.label}" for row in rows]
        left = np.zeros(len(rows))
        totals = np.array([_total(row) for row in rows])
        for key, text, colour, hatch in _PARTS:
            values = np.array([float((row.breakdown or {}).get(key) or 0.0) for row in rows])
            shares = 100 * values / totals
            axes.barh(
                names,
                shares,
                left=left,
                color=colour,
                hatch=hatch,
                label=text,
                edgecolor="#1a1a1a",
                linewidth=0.4,
            )
            left += shares
        floors = 100 * np.array([row.floor_ms or 0.0 for row in rows]) / totals
        style: dict[str, Any] = {"markersize": 14, "markeredgewidth": 2.5}
        axes.plot(floors, names, "|", color=ORANGE, label="floor", **style)
        for place, total in enumerate(totals):
            axes.annotate(f" {total:,.3g} ms", (100, place), va="center", fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="share of the mean latency, %", xlim=(0, 112))
        axes.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
        return _svg(figure, name="breakdown")


def predictions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Predicted over measured times of networks left out, with their intervals."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        times = np.array([row["time_ns"] for row in rows]) / 1e6
        told, low, high = (
            np.array([row[key] for row in rows]) / 1e6
            for key in ("predicted_ns", "low_ns", "high_ns")
        )
        bars = [told - low, high - told]
        axes.errorbar(times, told, yerr=bars, fmt="o", color=BLUE, ecolor="#9ab", markersize=4)
        ends = [times.min() / 1.5, times.max() * 1.5]
        axes.plot(ends, ends, "--", color=GREY, label="as measured")
        _axes(axes, x="measured, ms", y="predicted, left out, ms", legend="upper left")
        return _svg(figure, name="predictions")


def _number(value: float | None) -> float:
    """A figure that is known."""
    return float("nan") if value is None else value


def _total(row: Row) -> float:
    return float((row.breakdown or {}).get("total") or 1.0)


def _styles(rows: Sequence[Row], styles: Sequence[Any]) -> list[tuple[str, Any]]:
    labels = dict.fromkeys(row.label for row in rows)
    return [(label, styles[place % len(styles)]) for place, label in enumerate(labels)]


def _name_models(axes: Axes, rows: Sequence[Row]) -> None:
    """Each network once, above its slowest point; in turns higher, for those side by side."""
    highest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.flops or 0):
        if row.model not in highest or row.p50_ms > highest[row.model].p50_ms:
            highest[row.model] = row
    for place, row in enumerate(highest.values()):
        axes.annotate(
            row.model,
            (row.flops or 1, row.p50_ms),
            xytext=(0, 8 + 11 * (place % 4)),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )


def _axes(axes: Axes, *, x: str, y: str, legend: Any) -> None:
    axes.set(xlabel=x, ylabel=y, xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_plain))
    axes.legend(loc=legend, fontsize=8)
