"""What a check found: each limit beside what was measured, and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.comparison import HELD, MISSED, UNSURE

DONE, FAILED, OPEN = 0, 1, 3  # exit codes: all held, one missed, none missed but one open


@dataclass(frozen=True)
class Finding:
    """One limit: `value` must be at most (or, with `least`, at least) `limit`.

    `low` and `high` enclose the value; `note` says what would settle an open one.
    """

    model: str
    scenario: str
    key: str
    limit: float
    least: bool
    value: float | None
    low: float | None
    high: float | None
    verdict: str
    note: str = ""

    @property
    def name(self) -> str:
        """What it is about: "lenet5 single-stream p99_ms"."""
        return " ".join(part for part in (self.model, self.scenario, self.key) if part)

    @property
    def text(self) -> str:
        """The whole finding in one line."""
        sign = "at least" if self.least else "at most"
        interval = (
            f" ({number(self.low)} .. {number(self.high)})"
            if self.low is not None and self.high is not None
            else ""
        )
        note = f"; {self.note}" if self.note else ""
        return f"{number(self.value)}{interval}, {sign} {number(self.limit)}{note}"


def judged(*, low: float | None, high: float | None, limit: float, least: bool) -> str:
    """HELD where the whole interval is within the limit, MISSED where all of it is beyond."""
    if low is None or high is None:
        return UNSURE
    inside, outside = (low >= limit, high < limit) if least else (high <= limit, low > limit)
    if inside:
        return HELD
    return MISSED if outside else UNSURE


def exit_code(findings: Sequence[Mapping[str, Any]]) -> int:
    """0 all held, 1 one missed, 3 none missed but one could not be told."""
    verdicts = {finding["verdict"] for finding in findings}
    if MISSED in verdicts:
        return FAILED
    return OPEN if UNSURE in verdicts else DONE


def to_json(finding: Finding) -> dict[str, Any]:
    """As JSON holds it, with its name and text."""
    return {**asdict(finding), "name": finding.name, "text": finding.text}


def number(value: float | None) -> str:
    """Three significant digits, never in powers of ten; "?" for None."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
