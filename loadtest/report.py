"""One self-contained HTML page that tells how a model was trained, exported, served, measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtest import plots
from loadtest.summary import Bounded, Summary, read_summary

_TEMPLATE = "report.html.j2"


def write_demo_report(summary: Mapping[str, Any], *, path: Path) -> None:
    """Write the page for a summary as `loadtest.summary` describes it; needs no other file.

    Raises InvalidInput naming the part of the summary that is missing or wrong.
    """
    page = render(read_summary(summary))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def page_environment() -> Environment:
    """What the pages are made with; its filters write numbers."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _figure,
        "interval": _interval,
        "count": lambda value: f"{value:,.0f}",
        "percent": lambda share: f"{100 * share:.2f} %",
        "bytes": _bytes,
    }
    return environment


def render(summary: Summary) -> str:
    """The page as text."""
    return (
        page_environment()
        .get_template(_TEMPLATE)
        .render(
            summary=summary,
            same_answers=len({(row.correct, row.samples) for row in summary.accuracies}) == 1,
            machine=summary.hardware.fingerprint,
            environment=summary.runs[0].environment,
            settings=summary.runs[0].settings,
            plots={
                # Our own drawings; their labels are ours or were escaped by matplotlib.
                "learning": Markup(plots.learning_curve(summary.curve)),  # noqa: S704
                "percentiles": Markup(plots.latency_percentiles(summary.runs)),  # noqa: S704
                "sweep": Markup(plots.latency_by_batch_size(summary.sweep)),  # noqa: S704
            },
        )
    )


def _figure(value: float | None) -> str:
    """Three significant digits, never in powers of ten; "unknown" for None."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _interval(bounded: Bounded) -> str:
    low, high = (
        ("?" if bound is None else _figure(bound)) for bound in (bounded.low, bounded.high)
    )
    return f"{low} – {high}"  # noqa: RUF001 - an en dash


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.4g} {unit}"
        size /= 1024
    return f"{size:,.4g} GiB"
