"""Findings of a check as text, as JUnit XML, and as Markdown for a comment on a pull request."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from loadtest.comparison import HELD, MISSED, UNSURE

_MARKS = {HELD: "held", MISSED: "**MISSED**", UNSURE: "could not tell"}
_SUMMARY = {0: "All budgets held.", 1: "A budget was missed.", 3: "Not every budget could be told."}

Findings = Sequence[Mapping[str, Any]]


def as_text(findings: Findings, *, code: int) -> str:
    """One line each, what needs attention last."""
    order = {HELD: 0, UNSURE: 1, MISSED: 2}
    rows = sorted(findings, key=lambda finding: order[finding["verdict"]])
    width = max((len(row["name"]) for row in rows), default=0)
    lines = [f"{row['verdict']:>14}  {row['name']:<{width}}  {row['text']}" for row in rows]
    return "\n".join([*lines, _SUMMARY[code]])


def as_markdown(findings: Findings, *, code: int, against: str | None) -> str:
    """A table; what was compared with what stands above it."""
    title = f"### {_SUMMARY[code]}"
    lines = [title, ""]
    if against:
        lines += [f"Compared with `{against}`, in turns on the same machine.", ""]
    lines += ["| verdict | what | measured |", "|---|---|---|"]
    lines += [f"| {_MARKS[row['verdict']]} | {row['name']} | {row['text']} |" for row in findings]
    return "\n".join(lines) + "\n"


def as_junit(findings: Findings) -> str:
    """A test case each: missed ones fail, open ones are skipped with the reason."""
    suite = ElementTree.Element(
        "testsuite",
        name="ridgeline budgets",
        tests=str(len(findings)),
        failures=str(sum(row["verdict"] == MISSED for row in findings)),
        skipped=str(sum(row["verdict"] == UNSURE for row in findings)),
        errors="0",
    )
    for row in findings:
        where = " ".join(part for part in (row["model"], row["scenario"]) if part) or "server"
        case = ElementTree.SubElement(suite, "testcase", classname=where, name=row["key"])
        if row["verdict"] == MISSED:
            ElementTree.SubElement(case, "failure", message=row["text"])
        elif row["verdict"] == UNSURE:
            ElementTree.SubElement(case, "skipped", message=row["text"])
    ElementTree.indent(suite)
    declaration = '<?xml version="1.0" encoding="utf-8"?>\n'
    return declaration + ElementTree.tostring(suite, encoding="unicode") + "\n"
