"""The command `ridgeline report`: turn the summary of a demo run into one HTML page."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, NotFound


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ridgeline report`."""
    parser.add_argument(
        "summary", type=Path, metavar="SUMMARY.json", help="what `ridgeline demo` wrote"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("index.html"),
        metavar="FILE",
        help="the page to write (default: index.html)",
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the page; returns {"report": its path}.

    Raises NotFound or InvalidInput for a summary that is missing, is no JSON or lacks a part.
    """
    from loadtest.report import write_demo_report

    try:
        summary = json.loads(arguments.summary.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {arguments.summary}") from None
    except ValueError as error:
        raise InvalidInput(f"{arguments.summary} is not JSON: {error}") from error
    write_demo_report(summary, path=arguments.output)
    return {"report": str(arguments.output)}


def show(result: Mapping[str, Any]) -> None:
    """Say where the page is."""
    print(f"report: {result['report']}")
