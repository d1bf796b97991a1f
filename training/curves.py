"""The learning curves of all artifacts in one picture, for docs/zoo.md.

    python -m training.curves artifacts --output docs/images/curves.svg

Reads the `training.json` of each artifact; nothing else of the runs is needed. Each panel has an
axis of its own, logarithmic, since tasks differ in what they lose.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ridgeline.errors import CorruptData, NotFound, RidgelineError

_COLUMNS = 3
_PANEL_INCHES = (3.3, 2.3)
# Two of Okabe and Ito's colours; the lines differ in dashes, too, so that they do in print.
_LINES = (("loss", "training", "#0072B2", "-"), ("val_loss", "validation", "#D55E00", "--"))
# Text as outlines, and nothing that changes from run to run.
_STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "curves", "font.size": 8}


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The training.json of each artifact with a curve, by name. Raises NotFound, CorruptData."""
    reports = []
    for path in sorted(folder.glob("*/training.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if report["curve"]:
                reports.append(report)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptData(f"{path} is no report of a training run: {error!r}") from error
    if not reports:
        raise NotFound(f"{folder} holds no <model>/training.json with a learning curve")
    return reports


def draw_curves(path: Path, *, reports: Sequence[Mapping[str, Any]]) -> None:
    """Write one panel for each run to `path`, as SVG; equal reports give equal bytes."""
    rows = math.ceil(len(reports) / _COLUMNS)
    size = (_PANEL_INCHES[0] * _COLUMNS, _PANEL_INCHES[1] * rows)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axes, report in zip(panels, reports, strict=False):
            _draw(axes, report)
        for axes in panels[len(reports) :]:
            axes.remove()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _draw(axes: Axes, report: Mapping[str, Any]) -> None:
    """Loss over epochs; the title says what the test set showed in the end."""
    for key, label, colour, dashes in _LINES:
        points = [(p["epoch"], p[key]) for p in report["curve"] if p[key]]
        axes.plot(*zip(*points, strict=True), dashes, color=colour, label=label, marker=".")
    shown = ", ".join(
        f"{name.replace('_', ' ')} {value:.2%}"
        for name, value in report["measures"].items()
        if value is not None
    )
    axes.set_title(f"{report['model']} (seed {report['seed']})\ntest: {shown}", fontsize=8)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.curves", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("artifacts", type=Path, help="folder that holds <model>/training.json")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.svg")
    arguments = parser.parse_args(words)
    try:
        draw_curves(arguments.output, reports=read_reports(arguments.artifacts))
    except RidgelineError as error:
        print(f"training.curves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
