"""Two servers beside each other: where do their answers to the same cases differ, and why?

The reasons stand in differences.toml: `[[difference]]` tables with `cases` (patterns of names, as
the shell has them), `kind` and `reason`. The first that fits a case explains it. Statuses may
differ only where the kind says that Triton's cannot be followed.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.answer import Answer, same
from conformance.case import Outcome, Verdict
from ridgeline.errors import InvalidInput
from ridgeline.settings import read_toml

REASONS_FILE = Path(__file__).with_name("differences.toml")
KINDS = {
    "wrong": "Triton reports success, but did something else than it was asked: not followed",
    "silent": "Triton closes the connection without an answer: not followed",
    "crash": "Triton ends, so that it is not asked",
    "lacks": "Triton does not have it, or cannot do it",
    "shim": "not Triton's own ONNX Runtime backend, but a Python one that takes its place here",
    "specification": "same status; the body is the specification's, Triton's is not",
    "better": "same status; the body says more",
    "missing": "Ridgeline does not have it yet",
}
OTHER_STATUS = frozenset(("wrong", "silent", "crash", "lacks", "shim", "missing"))


@dataclass(frozen=True)
class Difference:
    """Why some cases are answered differently."""

    cases: tuple[str, ...]
    kind: str
    reason: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not self.cases or not self.reason:
            raise InvalidInput(
                f"a difference needs cases, a reason and a kind ({', '.join(KINDS)}), "
                f"received {self}"
            )

    def explains(self, case: str) -> bool:
        """Whether one of the patterns fits that case's name."""
        return any(fnmatch.fnmatchcase(case, pattern) for pattern in self.cases)


@dataclass(frozen=True)
class Compared:
    """One case at two servers: `ours` and `theirs` are what differs, None where nothing does."""

    case: str
    ours: Outcome
    theirs: Outcome
    why: Difference | None = None

    @property
    def both(self) -> bool:
        """Whether both were asked; one may lack an extension or a model, or be spared."""
        return Verdict.NOT_RUN not in (self.ours.verdict, self.theirs.verdict)

    @property
    def status_differs(self) -> bool:
        """Whether both answered, with another status."""
        answers = (self.ours.answer, self.theirs.answer) if self.both else ()
        return len({answer.status for answer in answers if answer}) > 1

    @property
    def explained(self) -> bool:
        """Whether there is nothing to explain, or a reason whose kind allows for it."""
        if not self.differs:
            return True
        return self.why is not None and (not self.status_differs or self.why.kind in OTHER_STATUS)

    @property
    def differs(self) -> bool:
        """Whether the answers are not the same, errors' texts apart; False where one is missing."""
        if not self.both:
            return False
        return not same(_comparable(self.ours.answer), _comparable(self.theirs.answer))


def read_reasons(path: Path = REASONS_FILE) -> list[Difference]:
    """The known differences. Raises InvalidInput where the file is not as it should be."""
    reasons = []
    for entry in read_toml(path).get("difference", []):
        cases = entry.get("cases")
        if set(entry) != {"cases", "kind", "reason"} or not isinstance(cases, list):
            raise InvalidInput(
                f"{path.name}: a difference has a list of cases, a kind and a reason, "
                f"received {entry}"
            )
        reasons.append(Difference(tuple(map(str, cases)), entry["kind"], entry["reason"]))
    return reasons


def compare(
    ours: Sequence[Outcome], *, theirs: Sequence[Outcome], reasons: Sequence[Difference]
) -> list[Compared]:
    """Every case that both were asked, with the reason where the answers differ."""
    by_name = {outcome.name: outcome for outcome in theirs}
    return [
        Compared(
            case=outcome.name,
            ours=outcome,
            theirs=by_name[outcome.name],
            why=next((reason for reason in reasons if reason.explains(outcome.name)), None),
        )
        for outcome in ours
        if outcome.name in by_name
    ]


def unexplained(compared: Sequence[Compared]) -> list[Compared]:
    """The differences that no reason explains, or one of a kind that keeps the status."""
    return [each for each in compared if not each.explained]


def idle(compared: Sequence[Compared], *, reasons: Sequence[Difference]) -> list[str]:
    """Patterns that explain nothing any more."""
    differing = [each.case for each in compared if each.differs]
    return [
        pattern
        for reason in reasons
        if reason.kind != "crash"  # such a case is not asked
        for pattern in reason.cases
        if not any(fnmatch.fnmatchcase(case, pattern) for case in differing)
    ]


def outcome_of(table: Mapping[str, Any], /) -> Outcome:
    """An outcome as `Outcome.to_json` wrote it."""
    answer = table["answer"]
    return Outcome(
        name=table["case"],
        verdict=Verdict(table["verdict"]),
        reason=table["reason"],
        answer=None if answer is None else Answer(answer["status"], answer["body"]),
    )


def _comparable(answer: Answer | None) -> Any:
    return None if answer is None else answer.comparable()
