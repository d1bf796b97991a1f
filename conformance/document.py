"""The table of differences in docs/conformance.md, made of a comparison, not by hand."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from conformance.comparison import KINDS, Compared
from ridgeline.errors import InvalidInput

BEGIN, END = "<!-- differences:begin -->", "<!-- differences:end -->"
_MOST_NAMES = 3  # of the cases of one difference; the others are counted


def write(path: Path, compared: Sequence[Compared], *, against: str) -> None:
    """Put the table between the markers of the file. Raises InvalidInput where it has none."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InvalidInput(f"{path} has no place between {BEGIN} and {END}")
    table = "\n".join(_lines(compared, against=against))
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _lines(compared: Sequence[Compared], *, against: str) -> Iterator[str]:
    differing = [each for each in compared if each.differs]
    asked = [each for each in compared if each.both]
    others = sum(each.status_differs for each in differing)
    yield (
        f"{len(compared)} cases. {len(asked)} were put to both Ridgeline and {against}: "
        f"{len(asked) - len(differing)} are answered alike, {len(differing)} differently, "
        f"{others} of them with another status. "
        "The others need an extension or a model that one of them lacks, or would end Triton."
    )
    for kind, meaning in KINDS.items():
        groups = _grouped(each for each in differing if each.why and each.why.kind == kind)
        if not groups:
            continue
        yield ""
        yield f"### {meaning[0].upper()}{meaning[1:]}"
        yield ""
        yield "| cases | Ridgeline | Triton | why |"
        yield "|---|---|---|---|"
        for why, group in groups.items():
            yield _row(why, group)


def _grouped(differing: Iterable[Compared]) -> dict[str, list[Compared]]:
    """By reason, in the order of the first case."""
    groups: dict[str, list[Compared]] = {}
    for each in differing:
        if each.why is not None:
            groups.setdefault(each.why.reason, []).append(each)
    return groups


def _row(reason: str, group: Sequence[Compared]) -> str:
    names = [f"`{each.case}`" for each in group[:_MOST_NAMES]]
    if len(group) > _MOST_NAMES:
        names.append(f"and {len(group) - _MOST_NAMES} more")
    ours = _statuses(each.ours.answer.status for each in group if each.ours.answer)
    theirs = _statuses(each.theirs.answer.status for each in group if each.theirs.answer)
    return f"| {', '.join(names)} | {ours} | {theirs} | {reason} |"


def _statuses(statuses: Iterable[str]) -> str:
    return ", ".join(sorted(set(statuses))) or "not asked"
