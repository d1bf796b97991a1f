"""The command `ridgeline export`."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.settings import ExportSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source, and what to publish it as."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="ARTIFACT|SAVED_MODEL_DIR",
        help="a folder that `ridgeline train` wrote, or any SavedModel with a serving signature",
    )
    parser.add_argument("--name", help="name to publish under (default: the artifact's)")
    parser.add_argument(
        "--max-batch-size",
        type=int,
        default=ExportSettings.max_batch_size,
        metavar="B",
        help="most rows that the server may run at once "
        f"(default: {ExportSettings.max_batch_size})",
    )
    parser.add_argument(
        "--relative-tolerance",
        type=float,
        default=ExportSettings.relative_tolerance,
        metavar="E",
        help="largest relative error with which the parity proof holds "
        f"(default: {ExportSettings.relative_tolerance:g})",
    )
    parser.add_argument(
        "--variant",
        choices=("int8", "fp16"),
        help="publish the graph at that precision as <name>_<variant>, if it keeps the accuracy",
    )
    parser.add_argument(
        "--stateful",
        action="store_true",
        help="publish the form that takes one element of a sequence at a time, as <name>_step",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository to publish into (default: model_repository)",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Convert, count, prove and publish. Raises a RidgelineError, with nothing published."""
    settings = ExportSettings(
        source=arguments.source,
        repository=arguments.repository,
        name=arguments.name,
        max_batch_size=arguments.max_batch_size,
        relative_tolerance=arguments.relative_tolerance,
        variant=arguments.variant,
        stateful=arguments.stateful,
    )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from export.pipeline import export  # TensorFlow: seconds, and only if needed

    return export(settings)


def show(result: Mapping[str, Any]) -> None:
    """What was published, and its proof."""
    cost, parity = result["cost"], result["parity"]
    table = Table(title=escape(f"published {result['directory']}"), show_header=False)
    if cost:
        table.add_row("FLOPs per sample", f"{cost['flops_per_sample']:,}")
        table.add_row("parameters", f"{cost['parameters']:,}")
    table.add_row("largest relative error", f"{parity['max_relative_error']:.1e}")
    table.add_row("largest absolute error", f"{parity['max_absolute_error']:.1e}")
    table.add_row("top-1 agreement", f"{100 * parity['top1_agreement']:.0f} %")
    for which, measures in result["measures"].items():
        table.add_row(*_measured(which, measures, accuracy=result["accuracy"].get(which)))
    for batch, found in result["variant"].get("speed", {}).items():
        table.add_row(f"speed, {batch.replace('_', ' of ')}", _speed(found))
    table.add_row("time", f"{result['seconds']} s")
    Console().print(table)


def _measured(
    which: str, measures: Mapping[str, float], *, accuracy: Mapping[str, Any] | None
) -> tuple[str, str]:
    if accuracy:
        counts = f"{accuracy['correct']:,} of {accuracy['samples']:,}"
        return f"accuracy, {which}", f"{100 * accuracy['accuracy']:.2f} % ({counts})"
    told = (f"{name.replace('_', ' ')} {100 * value:.2f} %" for name, value in measures.items())
    return f"test set, {which}", ", ".join(told)


def _speed(found: Mapping[str, Any]) -> str:
    interval = f"{found['low']:.2f} to {found['high']:.2f}"
    return f"{found['gain']:.2f} ({interval}) times as fast: {found['verdict']} here"
