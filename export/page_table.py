"""Tables of measurements in the pages of docs/, which commands rewrite row by row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PageTable:
    """The one table under a heading such as "## Exported"; a row is known by its first cell."""

    title: str
    columns: tuple[str, ...]

    def with_row(self, page: str, /, cells: Sequence[str]) -> str:
        """The page with that row in its table, in the order of names, in place of an older one.

        Raises ValueError where the page has no such heading, or cells are not one a column.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"a row needs {len(self.columns)} cells, received {list(cells)}")
        found = re.search(rf"^{re.escape(self.title)}$", page, re.MULTILINE)
        if not found:
            raise ValueError(f"the page has no heading {self.title!r}")
        before, rest = page[: found.end()], page[found.end() :]
        part, *others = re.split(r"(?=^## )", rest, maxsplit=1, flags=re.MULTILINE)
        head = _line(self.columns)
        text, _, table = part.partition(head)
        rows = {row[1]: row[0] for row in re.finditer(r"^\| (\S+) \|.*$", table, re.MULTILINE)}
        behind = re.sub(r"^\|.*\n?", "", table, flags=re.MULTILINE).strip()
        rows[cells[0]] = _line(cells)
        lines = [head, f"|{'---|' * len(self.columns)}", *(rows[name] for name in sorted(rows))]
        parts = [text.rstrip(), "\n".join(lines), *([behind] if behind else [])]
        return before + "\n\n".join(parts) + "\n\n" + "".join(others)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
