"""The command `ridgeline conformance`: does a server speak the protocol?"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline conformance`."""
    parser.add_argument("--grpc", metavar="HOST:PORT", help="where the server answers gRPC")
    parser.add_argument("--http", metavar="HOST:PORT", help="where the server answers HTTP")
    parser.add_argument(
        "--filter",
        nargs="+",
        default=[],
        metavar="WORD",
        help="only the cases whose names hold one of these",
    )
    parser.add_argument("--list", action="store_true", help="name the cases, ask nobody")
    parser.add_argument(
        "--write-repository",
        type=Path,
        metavar="DIR",
        help="write the models that the cases ask for into an empty folder, and end",
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="for each exchange (default: 10)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the result here")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Put the cases to the server; returns {"counts": ..., "outcomes": [one per case]}.

    Raises WrongUsage for flags that make no sense, Unavailable where no server answers.
    """
    from ridgeline.errors import WrongUsage

    if arguments.write_repository:
        from conformance import repository

        return {"written": repository.write(arguments.write_repository)}
    if arguments.list:
        from conformance.case import chosen
        from conformance.cases import every_case

        return {"cases": [case.name for case in chosen(every_case(), words=arguments.filter)]}
    if not (arguments.grpc and arguments.http):
        raise WrongUsage("--grpc HOST:PORT and --http HOST:PORT must both be given")
    return _ask(arguments)


def _ask(arguments: argparse.Namespace) -> dict[str, Any]:
    import json

    from conformance import suite

    with suite.connected(
        grpc=arguments.grpc, http=arguments.http, timeout_s=arguments.timeout
    ) as server:
        outcomes = suite.run(server, words=arguments.filter)
    result = {
        "counts": suite.counted(outcomes),
        "outcomes": [outcome.to_json() for outcome in outcomes],
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def failed(result: Mapping[str, Any]) -> bool:
    """Whether a case failed: the exit code tells."""
    return bool(result.get("counts", {}).get("fail"))


def show(result: Mapping[str, Any]) -> None:
    """Print the table of a run, or the names that were written or listed."""
    if "outcomes" not in result:
        for name in result.get("written", result.get("cases", [])):
            print(name)
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("case", "verdict", "received"):
        table.add_column(column, overflow="fold")
    colours = {"pass": "green", "fail": "bold red", "not run": "yellow"}
    for row in result["outcomes"]:
        verdict = row["verdict"]
        told = row["reason"] or (row["answer"] or {}).get("status", "")
        table.add_row(row["case"], f"[{colours[verdict]}]{verdict}[/]", told.replace("[", "\\["))
    # A pipe has no width of its own; names must stay whole there, for grep.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result["counts"].items())
    console.print(f"{len(result['outcomes'])} cases: {counts}", markup=False)
