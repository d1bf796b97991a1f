"""Exports every network of the zoo, untrained, and writes what that took into docs/zoo.md.

    python -m export.zoo_table [NETWORK ...]

Each network is written and exported by the commands of users, in a process of its own, whose
processor time and peak memory are measured. Rows of networks that are not named stay as they are.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.page_table import PageTable

_PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
_TABLE = PageTable(
    title="## Exported",
    columns=(
        *("network", "relative error", "multiply-adds", "parameters"),
        *("opset", "file, MB", "processor, s", "memory, MB"),
    ),
)
_NETWORKS = "## Networks"


@dataclass(frozen=True)
class Child:
    """A command that ended: what it printed, its seconds of processors, its most resident bytes."""

    output: dict[str, Any]
    processor_seconds: float
    peak_bytes: int


def main(arguments: Sequence[str] | None = None, /) -> int:
    """Measure, and rewrite the table after each network; 1 where one could not be exported."""
    parser = argparse.ArgumentParser(prog="python -m export.zoo_table")
    parser.add_argument("network", nargs="*", help="which ones (default: all of the page)")
    parser.add_argument("--page", type=Path, default=_PAGE, help="the page to rewrite")
    options = parser.parse_args(arguments)
    failed = 0
    for network in options.network or networks(options.page.read_text()):
        try:
            row = measured(network)
        except subprocess.CalledProcessError as error:
            print(f"{network}: {error.stderr.strip()[-500:]}", file=sys.stderr, flush=True)
            failed += 1
            continue
        print(*row, sep=", ", flush=True)
        options.page.write_text(_TABLE.with_row(options.page.read_text(), row))
    return 1 if failed else 0


def networks(page: str, /) -> list[str]:
    """The networks that the page lists under its heading of that name."""
    part = page.partition(_NETWORKS)[2]
    return [name for name in re.findall(r"^\| (\w+) \|", part, re.MULTILINE) if name != "network"]


def measured(network: str, /) -> tuple[str, ...]:
    """The row of one network. Raises CalledProcessError where a command fails."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        command = ["train", "--untrained", network, "--output", folder]
        artifact = child(*command).output["artifact"]
        exported = child("export", artifact, "--repository", f"{folder}/repository")
        return row_of(network, exported)


def child(*command: str) -> Child:
    """Run a command of ours with --json. Raises CalledProcessError with its standard error."""
    words = [sys.executable, "-m", "ridgeline", *command, "--json"]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, stdout=output, stderr=errors)  # noqa: S603
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words, stderr=errors.read())
        return Child(
            output=json.loads(output.read()),
            processor_seconds=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * 1024,
        )


def row_of(network: str, exported: Child, /) -> tuple[str, ...]:
    """The cells of a row."""
    found: Mapping[str, Any] = exported.output
    cost = found["cost"] or {}
    return (
        network,
        f"{found['parity']['max_relative_error']:.1e}",
        _whole(cost.get("multiply_adds_per_sample")),
        _whole(cost.get("parameters")),
        str(found["opset"]),
        f"{found['file_bytes'] / 1e6:,.1f}",
        f"{exported.processor_seconds:.0f}",
        f"{exported.peak_bytes / 1e6:,.0f}",
    )


def _whole(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


if __name__ == "__main__":
    raise SystemExit(main())
