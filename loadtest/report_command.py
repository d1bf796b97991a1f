"""The command `ridgeline report`: one HTML page of a demo, or of measurements side by side."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ridgeline report`."""
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE.json",
        help="what `ridgeline demo` wrote; or measurements, of `ridgeline loadtest --output` or "
        "`python -m loadtest.bench.campaign`: several are compared on one page",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("index.html"),
        metavar="FILE",
        help="the page to write (default: index.html)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="also write the page's data, merged, as JSON"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the page; returns {"report": its path}.

    Raises NotFound or InvalidInput for a file that is missing, is no JSON or lacks a part.
    """
    from loadtest import measured
    from ridgeline.errors import InvalidInput

    tables = {path.stem: measured.read_table(path) for path in arguments.files}
    if len(tables) < len(arguments.files):
        raise InvalidInput(
            "the files must have different names: the page tells them apart by these"
        )
    if all(measured.is_measured(table) for table in tables.values()):
        from loadtest.measured_report import write

        merged = measured.merge(tables)
        write(merged, path=arguments.output)
        if arguments.data:
            text = json.dumps(merged.to_json(list(tables.values())), indent=1, allow_nan=False)
            arguments.data.write_text(text + "\n", encoding="utf-8")
    elif len(tables) == 1:
        from loadtest.report import write_demo_report

        write_demo_report(next(iter(tables.values())), path=arguments.output)
    else:
        raise InvalidInput("only measurements can be compared; one of the files holds none")
    return {"report": str(arguments.output)}


def show(result: Mapping[str, Any]) -> None:
    """Say where the page is."""
    print(f"report: {result['report']}")
