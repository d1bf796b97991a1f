"""The result of an overload, as a table and as a plot."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from loadtest.plots import _STYLE, _TIMES, BLUE, GREEN, GREY, ORANGE, _svg

_SKY, _PURPLE = "#56B4E9", "#CC79A7"  # of Okabe and Ito, too
_LOOKS = (
    (BLUE, "o-"),
    (ORANGE, "s--"),
    (GREEN, "^-."),
    (_PURPLE, "v:"),
    (_SKY, "D-"),
)


def on_time_plot(result: Mapping[str, Any]) -> str:
    """On-time throughput against offered load, both as shares of the capacity: an <svg> element.

    One plot for each model, one line for each server; grey is what an ideal server would do.
    """
    models = result["models"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * len(models), 3.8), layout="constrained")
        (row,) = figure.subplots(1, len(models), squeeze=False, sharey=True)
        for axes, (model, servers) in zip(row, models.items(), strict=True):
            for (color, style), (name, found) in zip(_LOOKS, servers.items(), strict=False):
                rates = list(found["medians"]["rates"].values())
                offered = [rate["offered"] for rate in rates]
                shares = [rate["on_time_share"] for rate in rates]
                axes.plot(offered, shares, style, color=color, label=name)
            most = max(result["settings"]["offered"])
            axes.plot((0, 1, most), (0, 1, 1), color=GREY, linewidth=0.8, label="ideal")
            axes.set(title=model, xlabel="offered load / capacity", xlim=(0, most * 1.03))
        row[0].set(ylabel="answered on time / capacity", ylim=(0, 1.15))
        row[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
        return _svg(figure, name="overload")


def table(servers: Mapping[str, Any], *, model: str, settings: Mapping[str, Any]) -> Table:
    """The medians over one model, one column for each server.

    "rest" is what refusals leave of the capacity (`overload_figures.remaining_per_s`).
    """
    found = Table(
        title=f"{model}: medians of {settings['rounds']} rounds",
        box=box.SIMPLE,
        padding=(0, 0, 0, 1),
    )
    found.add_column("")
    for name in servers:
        found.add_column(name, justify="right")
    columns = [_column(server["medians"], settings=settings) for server in servers.values()]
    for row in columns[0]:
        found.add_row(row, *(column[row] for column in columns))
    return found


def _column(figures: Mapping[str, Any], *, settings: Mapping[str, Any]) -> dict[str, str]:
    """What is told of one server, by the texts on the left."""
    rates = {f"{offered:g}": f"{offered:g} {_TIMES}" for offered in settings["offered"]}
    classes = figures["mixed"]["classes"]
    mixed = f"{figures['mixed']['offered']:g} {_TIMES}"
    most = list(rates)[-1]
    return {
        "capacity, 1/s": _form(figures["capacity_per_s"], ",.0f"),
        "CPU per request, us": _form(figures["server_cpu_us"], ".0f"),
        "CPU per echo, us": _form(figures["echo_cpu_us"], ".1f"),
        **{
            f"{text}: on time / capacity": _form(figures["rates"][rate]["on_time_share"], ".0%")
            for rate, text in rates.items()
        },
        **{
            f"{text}: on time / rest": _form(figures["rates"][rate]["on_time_to_remaining"], ".0%")
            for rate, text in rates.items()
        },
        f"{rates[most]}: refusal p99, ms": _form(figures["rates"][most]["refusal_p99_ms"], ".1f"),
        f"mixed {mixed}: on time": _form(figures["mixed"]["on_time_share"], ".0%"),
        **{
            f"  within {deadline_ms} ms": _form(found["on_time_share"], ".0%")
            for deadline_ms, found in classes.items()
        },
        "recovers within, ms": _form(figures["recovery_ms"], ".0f", missing="not"),
    }


def _form(value: float | None, form: str, *, missing: str = "-") -> str:
    return missing if value is None else format(value, form)
