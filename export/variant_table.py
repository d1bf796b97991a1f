"""Makes the variants of artifacts, and writes what they keep and gain into docs/zoo.md.

    python -m export.variant_table ARTIFACT ...

Nothing is published; what would be refused stands in the table, too, with its figures.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.page_table import PageTable
from ridgeline.errors import RidgelineError

_PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
_TABLE = PageTable(
    title="## Lower precision",
    columns=(
        *("variant", "full graph", "variant's", "published"),
        *("gain, batch of 1", "gain, batch of 8", "file, MB", "of, MB"),
    ),
)


def main(arguments: Sequence[str] | None = None, /) -> int:
    """Measure, and rewrite the table after each artifact; 1 where one could not be exported."""
    parser = argparse.ArgumentParser(prog="python -m export.variant_table")
    parser.add_argument("artifact", nargs="+", type=Path, help="folder that training wrote")
    parser.add_argument("--page", type=Path, default=_PAGE, help="the page to rewrite")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    failed = 0
    for artifact in options.artifact:
        try:
            for row in rows(artifact):
                print(*row, sep=", ", flush=True)
                options.page.write_text(_TABLE.with_row(options.page.read_text(), row))
        except RidgelineError as error:
            print(f"{artifact}: {error}", file=sys.stderr, flush=True)
            failed += 1
    return 1 if failed else 0


def rows(source: Path, /) -> Iterator[tuple[str, ...]]:
    """A row for each variant. Raises a RidgelineError where the artifact cannot be exported."""
    from export import pipeline, variants
    from export.artifact import read_artifact
    from export.settings import ExportSettings

    artifact = read_artifact(source)
    full = pipeline.proven(artifact, settings=ExportSettings(source=source, repository=source))
    for variant in variants.NAMES:
        try:
            graph, verdict = pipeline.variant_of(full, artifact, variant=variant)
        except RidgelineError as error:
            reason = " ".join(str(error).replace("|", "/").split())
            yield (f"{full.spec.name}_{variant}", "-", "-", f"no: {reason}", *["-"] * 4)
            continue
        speed = pipeline.with_gain(graph, full=full).variant["speed"]
        yield (
            graph.spec.name,
            _told(verdict.full.measures),
            _told(verdict.found.measures),
            "no" if verdict.lost else "yes",
            _gain(speed["batch_1"]),
            _gain(speed["batch_8"]),
            *(f"{len(one.serialised) / 1e6:.2f}" for one in (graph, full)),
        )


def _told(measures: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in measures.items())


def _gain(found: Mapping[str, Any]) -> str:
    return f"{found['gain']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
