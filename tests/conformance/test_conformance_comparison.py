"""Two servers compared: what differs needs a reason, and a reason needs a difference."""

import pytest

from conformance import document
from conformance.answer import Answer
from conformance.case import Outcome, Verdict
from conformance.cases import every_case
from conformance.comparison import (
    Difference,
    compare,
    idle,
    outcome_of,
    read_reasons,
    unexplained,
)
from ridgeline.errors import InvalidInput

WHY = Difference(("http/b*", "http/never"), "wrong", "because")


def outcome(name, status, verdict=Verdict.PASS):
    return Outcome(name, verdict, "", Answer(status, {"error": status}))


@pytest.fixture
def compared():
    ours = [outcome(f"http/{name}", "400") for name in ("a", "b", "c")]
    theirs = [
        outcome("http/a", "400"),
        outcome("http/b", "500"),
        outcome("http/c", "500", Verdict.NOT_RUN),
    ]
    return compare(ours, theirs=theirs, reasons=[WHY])


def test_only_what_both_were_asked_can_differ(compared):
    assert [each.differs for each in compared] == [False, True, False]
    assert [each.both for each in compared] == [True, True, False]


def test_a_difference_without_a_reason_is_found(compared):
    assert unexplained(compared) == []
    bare = compare([each.ours for each in compared], theirs=[compared[1].theirs], reasons=[])
    assert [each.case for each in unexplained(bare)] == ["http/b"]


def test_a_kind_that_keeps_the_status_explains_no_other_one(compared):
    same_status = Difference(WHY.cases, "specification", "because")
    [differing] = [each for each in compared if each.differs]

    [again] = compare([differing.ours], theirs=[differing.theirs], reasons=[same_status])

    assert unexplained([again]) == [again]


def test_a_body_may_differ_by_a_reason_that_keeps_the_status():
    ours, theirs = (Outcome("http/b", Verdict.PASS, "", Answer("200", body)) for body in ("x", "y"))
    same_status = Difference(WHY.cases, "specification", "because")

    compared = compare([ours], theirs=[theirs], reasons=[same_status])

    assert [each.differs for each in compared] == [True]
    assert unexplained(compared) == []


def test_a_reason_without_a_difference_is_found(compared):
    assert idle(compared, reasons=[WHY]) == ["http/never"]


def test_the_table_stands_between_its_markers(compared, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")

    document.write(page, compared, against="Triton")

    text = page.read_text()
    assert "| `http/b` | 400 | 500 | because |" in text
    assert "2 were put to both Ridgeline and Triton: 1 are answered alike, 1 differently, " in text
    assert "1 of them with another status" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_a_page_without_markers_is_refused(compared, tmp_path):
    (tmp_path / "page.md").write_text("nothing")

    with pytest.raises(InvalidInput, match="has no place between"):
        document.write(tmp_path / "page.md", compared, against="Triton")


def test_an_outcome_comes_back_as_it_was_kept():
    kept = outcome("http/a", "400")

    assert outcome_of(kept.to_json()) == kept


def test_every_reason_is_about_cases_that_there_are():
    names = [case.name for case in every_case()]

    for reason in read_reasons():
        for pattern in reason.cases:
            alone = Difference((pattern,), reason.kind, reason.reason)
            assert any(map(alone.explains, names)), pattern


@pytest.mark.parametrize(
    "text",
    ['cases = "x"\nkind = "better"\nreason = "y"', 'cases = ["x"]\nkind = "odd"\nreason = "y"'],
)
def test_a_reason_that_says_too_little_is_refused(text, tmp_path):
    (tmp_path / "x.toml").write_text(f"[[difference]]\n{text}\n")

    with pytest.raises(InvalidInput, match="received"):
        read_reasons(tmp_path / "x.toml")
