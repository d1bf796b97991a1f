"""The plots of a report, as SVG to be put into a page. Colours are those of Okabe and Ito (2008),
which people with any kind of colour vision can tell apart; lines differ in style, too.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from loadtest.summary import Epoch, Run

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # looks the same everywhere, fonts or not
}
_TIMES = "\N{MULTIPLICATION SIGN}"
_METADATA = "Creator", "Date", "Format", "Type"  # left out: the page says all that
_PERCENTILES = (0, 50, 90, 99, 99.9, 99.99, 99.999)


def learning_curve(epochs: Sequence[Epoch]) -> str:
    """Loss and error rate, in training and on the samples held back, after each epoch."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        loss, error = figure.subplots(1, 2)
        numbers = [epoch.epoch for epoch in epochs]
        _pair(
            loss,
            numbers,
            training=[epoch.loss for epoch in epochs],
            held_back=[epoch.val_loss for epoch in epochs],
        )
        loss.set(title="loss (log scale)", xlabel="epoch", yscale="log")
        _pair(
            error,
            numbers,
            training=[100 * (1 - epoch.accuracy) for epoch in epochs],
            held_back=[100 * (1 - epoch.val_accuracy) for epoch in epochs],
        )
        error.set(title="wrong answers, %", xlabel="epoch")
        error.set_ylim(bottom=0)
        for axes in (loss, error):
            axes.xaxis.get_major_locator().set_params(integer=True)
        _plain_log(loss)
        error.legend()
        return _svg(figure, name="learning-curve")


def latency_percentiles(runs: Sequence[Run]) -> str:
    """Latency at each percentile, with the percentiles spaced in nines to show the tail."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        styles = zip((BLUE, ORANGE, GREEN), ("-", "--", "-."), strict=True)
        for run, (color, style) in zip(runs, styles, strict=False):
            percents, values = zip(*run.curve, strict=True)
            nines = [_nines(percent) for percent in percents]
            axes.plot(nines, values, style, color=color, label=run.protocol, drawstyle="steps-pre")
        furthest = max(_nines(run.curve[-1][0]) for run in runs)
        ticks = [percent for percent in _PERCENTILES if _nines(percent) <= furthest + 0.01]
        axes.xaxis.set_major_locator(FixedLocator([_nines(percent) for percent in ticks]))
        axes.xaxis.set_major_formatter(
            FuncFormatter(
                lambda _, index: f"{ticks[index or 0]:g} %" if ticks[index or 0] else "least"
            )
        )
        axes.set(
            xlabel="share of requests answered at least this fast",
            ylabel="latency, ms",
            yscale="log",
        )
        _plain_log(axes)
        axes.legend()
        return _svg(figure, name="latency-percentiles")


def latency_by_batch_size(runs: Sequence[Run]) -> str:
    """Median and p99 latency against the batch size, with the floor below them.

    `runs` come in rising order of batch size.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        sizes = [run.batch_size for run in runs]
        slowest = axes.errorbar(
            sizes,
            [run.p99.value for run in runs],
            yerr=_error_bars(runs),
            fmt="s--",
            color=ORANGE,
            capsize=3,
            label="p99, with its 95 % confidence interval",
        )
        medians = [run.p50.value for run in runs]
        middle = axes.plot(sizes, medians, "o-", color=BLUE, label="p50")
        bounded = {run.batch_size: run.floor_ms for run in runs if run.floor_ms}
        floor = axes.plot(
            list(bounded), list(bounded.values()), "^:", color=GREEN, label="physical floor"
        )
        _label_ratios(axes, [run for run in runs if run.floor_ms])
        axes.set(
            xlabel="batch size (samples per request)",
            ylabel="latency, ms",
            xscale="log",
            yscale="log",
        )
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.xaxis.set_minor_locator(NullLocator())
        _plain_log(axes)
        axes.legend(  # above the plot: the lines rise through any corner
            handles=[slowest, *middle, *(floor if bounded else ())],
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
        )
        return _svg(figure, name="latency-by-batch-size")


def _pair(
    axes: Axes, numbers: Sequence[int], *, training: Sequence[float], held_back: Sequence[float]
) -> None:
    axes.plot(numbers, training, "o-", color=BLUE, label="training")
    axes.plot(numbers, held_back, "s--", color=ORANGE, label="validation (held back)")


def _error_bars(runs: Sequence[Run]) -> list[list[float]]:
    """How far each interval of p99 reaches down and up; not at all where a bound is unknown."""
    lows = [run.p99.value - (run.p99.low or run.p99.value) for run in runs]
    highs = [(run.p99.high or run.p99.value) - run.p99.value for run in runs]
    return [lows, highs]


def _label_ratios(axes: Axes, runs: Sequence[Run]) -> None:
    """At the first and the last batch size, how many times the floor the median takes."""
    for run in {run.batch_size: run for run in (*runs[:1], *runs[-1:])}.values():
        if run.floor_ms and run.p50_to_floor:
            axes.vlines(run.batch_size, run.floor_ms, run.p50.value, color=GREY, linewidth=0.8)
            axes.annotate(
                f"{_TIMES} {run.p50_to_floor:,.3g}",
                (run.batch_size, math.sqrt(run.floor_ms * run.p50.value)),
                xytext=(5, 0) if run is runs[0] else (-5, 0),
                textcoords="offset points",
                ha="left" if run is runs[0] else "right",
                va="center",
                color=GREY,
            )


def _nines(percent: float) -> float:
    """0 % -> 0, 90 % -> 1, 99 % -> 2."""
    return -math.log10(1 - percent / 100)


def _plain_log(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis; those between the powers of ten where it is short."""
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    low, high = axes.get_ylim()
    short = math.log10(high / low) < 1.5
    axes.yaxis.set_minor_formatter(
        FuncFormatter(lambda value, _: _plain(value) if _leading(value) in (2, 5) else "")
        if short
        else NullFormatter()
    )


def _leading(value: float) -> float:
    return float(round(value / 10.0 ** math.floor(math.log10(value)), 6))


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value:.10g}"


def _svg(figure: Figure, *, name: str) -> str:
    """The figure as an <svg> element, the same for the same data, with ids of its own."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
