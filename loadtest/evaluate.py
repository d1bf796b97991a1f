"""The command `ridgeline evaluate`: send labelled samples to a server and count right answers."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.command import add_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline evaluate`."""
    add_target(parser)
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help='files or folders with samples, as `ridgeline loadtest` takes them, and their "label"',
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="samples per request (default: 64, or the most that the model takes)",
    )
    parser.add_argument(
        "--concurrency", type=int, default=1, metavar="C", help="requests at a time (default: 1)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Classify every sample; returns accuracy, correct, samples, protocol, seconds and output.

    Raises WrongUsage for flags that make no sense, otherwise as `evaluation.evaluate`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from loadtest.connection import check_address
    from loadtest.evaluation import Service, evaluate
    from ridgeline.errors import WrongUsage

    check_address(arguments.url)
    for name in ("batch_size", "concurrency"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise WrongUsage(f"--{name.replace('_', '-')} must be positive, received {value}")
    service = Service(
        url=arguments.url,
        protocol=arguments.protocol,
        model=arguments.model,
        version=arguments.model_version,
    )
    progress = Progress(console=Console(stderr=True), disable=arguments.json)

    def on_progress(done: int, total: int) -> None:
        if not progress.tasks:
            progress.start()
            progress.add_task(f"classifying over {service.protocol}", total=total)
        progress.update(progress.task_ids[0], completed=done)

    try:
        return evaluate(
            service,
            data=arguments.data,
            batch_size=arguments.batch_size,
            concurrency=arguments.concurrency,
            on_progress=on_progress,
        )
    finally:
        if progress.tasks:  # else it was never started
            progress.stop()


def show(result: Mapping[str, Any]) -> None:
    """Print the accuracy in one line."""
    print(
        f"accuracy {100 * result['accuracy']:.2f} %: {result['correct']:,} of "
        f"{result['samples']:,} samples right by {result['output']!r}, "
        f"over {result['protocol']}, in {result['seconds']:.1f} s"
    )
