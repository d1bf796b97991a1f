"""Counts every network of the zoo twice, here and in TensorFlow, into docs/measurement.md.

    python -m export.profiler_table [NETWORK ...]

Rows of networks that are not named stay as they are. Ends with 1 where something is not explained.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from export.page_table import PageTable
from export.zoo_table import child, networks

_DOCS = Path(__file__).parent.parent / "docs"
TABLE = PageTable(
    title="## Counted twice",
    columns=(
        *("network", "ours", "profiler's products", "loops", "open", "Einsum", "unused"),
        *("left", "profiler's rest"),
    ),
)


def main(arguments: Sequence[str] | None = None, /) -> int:
    """Count, and rewrite the table after each network."""
    parser = argparse.ArgumentParser(prog="python -m export.profiler_table")
    parser.add_argument("network", nargs="*", help="which ones (default: the whole zoo)")
    parser.add_argument("--page", type=Path, default=_DOCS / "measurement.md")
    options = parser.parse_args(arguments)
    failed = 0
    for network in options.network or networks((_DOCS / "zoo.md").read_text()):
        try:
            row, left = counted(network)
        except subprocess.CalledProcessError as error:
            print(f"{network}: {error.stderr.strip()[-500:]}", file=sys.stderr, flush=True)
            failed += 1
            continue
        failed += left != 0
        print(*row, sep=", ", flush=True)
        options.page.write_text(TABLE.with_row(options.page.read_text(), row))
    return 1 if failed else 0


def counted(network: str, /) -> tuple[tuple[str, ...], int]:
    """The row of one network, untrained, and how many FLOPs are not explained.

    Raises CalledProcessError where it cannot be built.
    """
    from export.convert import convert
    from export.profiler import profiled
    from export.saved_model import SavedModel
    from ridgeline import graph

    with tempfile.TemporaryDirectory(dir=".") as folder:
        built = child("train", "--untrained", network, "--output", folder).output["artifact"]
        saved = SavedModel(Path(built) / "saved_model")
        ours = graph.cost_of(convert(saved, name=network), batches=True).flops_per_sample
        theirs = profiled(saved.positional())
    left = ours - theirs.explained
    numbers = (
        *(ours, theirs.products, theirs.loops, theirs.open, theirs.einsum, theirs.unused),
        *(left, theirs.rest),
    )
    cells = [f"{number:,}" for number in numbers]
    cells[-1] += f" ({theirs.rest / ours:.1%})"
    return (network, *cells), left


if __name__ == "__main__":
    raise SystemExit(main())
