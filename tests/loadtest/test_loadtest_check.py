"""`ridgeline check`: verdicts by hand, its outputs, and once for real over a network made here."""

import json
from xml.etree import ElementTree

import pytest

from loadtest import check, check_output, findings, versions
from loadtest.bench import networks
from loadtest.check import _Figure, _finding
from loadtest.comparison import HELD, MISSED, UNSURE
from ridgeline.__main__ import main
from ridgeline.errors import NotFound, StepFailed

KEY = ("net", "single-stream", "p99_ms")


def found(*figures, limit=10.0, key=KEY):
    return _finding(*key, limit=limit, rounds=[{key: figure} for figure in figures])


def test_a_limit_is_held_where_every_round_holds_it():
    finding = found(_Figure(5, 4, 6), _Figure(8, 7, 9), _Figure(6, 5, 7))
    assert (finding.verdict, finding.value, finding.low, finding.high) == (HELD, 6, 4, 9)
    assert finding.text == "6.00 (4.00 .. 9.00), at most 10.0"
    assert finding.name == "net single-stream p99_ms"


def test_a_limit_is_missed_where_every_round_misses_it():
    assert found(_Figure(15, 14, 16), _Figure(18, 17, 19)).verdict == MISSED


def test_rounds_that_disagree_settle_nothing():
    finding = found(_Figure(5, 4, 6), _Figure(18, 17, 19))
    assert finding.verdict == UNSURE
    assert "more rounds or a quieter machine would settle it" in finding.text


def test_noise_excuses_a_miss_but_spoils_no_success():
    finding = found(_Figure(15, 14, 16, "noise: it jumped"))
    assert finding.verdict == UNSURE
    assert "noise: it jumped; more rounds" in finding.note
    assert found(_Figure(5, 4, 6, "noise: it jumped")).verdict == HELD


def test_too_few_requests_for_an_interval_say_so():
    assert "a longer --duration would settle it" in found(_Figure(5, 4, None)).note


def test_throughput_is_a_limit_from_below():
    key = ("net", "offline", "throughput_per_s")
    finding = found(_Figure(90, 90, 90), limit=100, key=key)
    assert finding.verdict == MISSED
    assert "at least 100" in finding.text


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [([HELD], 0), ([HELD, UNSURE], 3), ([HELD, UNSURE, MISSED], 1), ([], 0)],
)
def test_the_exit_code_tells_the_worst(verdicts, code):
    assert findings.exit_code([{"verdict": verdict} for verdict in verdicts]) == code


@pytest.fixture
def three():
    """A finding of each verdict, as JSON."""
    made = [
        found(_Figure(5, 4, 6)),
        found(_Figure(15, 14, 16)),
        found(_Figure(10, 4, 16)),
    ]
    return [findings.to_json(each) for each in made]


def test_junit_has_a_case_each(three):
    suite = ElementTree.fromstring(check_output.as_junit(three).encode())
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert [len(case) for case in suite] == [0, 1, 1]
    assert suite[1][0].tag == "failure"
    assert suite[2][0].get("message").startswith("10.0 (4.00 .. 16.0), at most 10.0")


def test_markdown_and_text_show_what_was_missed(three):
    page = check_output.as_markdown(three, code=1, against="main")
    assert "| **MISSED** | net single-stream p99_ms |" in page
    assert "Compared with `main`" in page
    text = check_output.as_text(three, code=1)
    assert text.splitlines()[-1] == "A budget was missed."
    assert text.splitlines()[-2].strip().startswith("missed")


BUDGETS = """
[server]
cold_start_s = 110
memory_mib = 4000
[models.lenet5]
load_time_s = 100
[models.lenet5.single-stream]
p50_ms = 0.0001         # nobody can
p50_to_floor = 1000000
[models.lenet5.offline]
throughput_per_s = 0.5
[regression]
p50 = 100
"""


@pytest.fixture
def words(tmp_path):
    networks.write(["lenet5"], root=tmp_path / "models")
    budgets = tmp_path / "budgets.toml"
    budgets.write_text(BUDGETS)
    common = ["--budgets", budgets, "--repository", tmp_path / "models", "--rounds", "1"]
    return [str(word) for word in ("check", *common, "--duration", "0.3")]


def test_budgets_are_checked_on_a_server_of_ours(words, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("output", "junit", "markdown")}
    more = [str(word) for name, path in files.items() for word in (f"--{name}", path)]
    against = ["--against", str(versions._ROOT), "--pairs", "4", "--most-rounds", "4"]
    code = main([*words, *more, *against, "--json"])
    result = json.loads(capsys.readouterr().out)
    verdicts = {each["name"]: each["verdict"] for each in result["findings"]}
    assert verdicts.pop("lenet5 single-stream p50_ms") in (MISSED, UNSURE)  # by how noisy it is
    assert verdicts == dict.fromkeys(
        [
            "cold_start_s",
            "memory_mib",
            "lenet5 load_time_s",
            "lenet5 single-stream p50_to_floor",
            "lenet5 offline throughput_per_s",
            "lenet5 against the baseline p50",
        ],
        HELD,
    )
    assert code == result["exit_code"] in (1, 3)
    assert json.loads(files["output"].read_text()) == result
    assert "<testsuite" in files["junit"].read_text()
    assert "| verdict | what | measured |" in files["markdown"].read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--pairs", "3"], "--pairs must be at least 4, received 3"),
        (["--most-rounds", "3"], "--most-rounds must be at least 4, received 3"),
        (["--duration", "0"], "--duration must be positive"),
        (["--only-against"], "--only-against needs --against"),
    ],
)
def test_flags_of_no_sense_are_wrong_usage(words, capsys, more, told):
    assert main([*words, *more]) == 2
    assert told in capsys.readouterr().err


def test_a_baseline_that_is_nothing_is_named(tmp_path):
    with pytest.raises(NotFound, match="no-such-revision"), versions.version_of("no-such-revision"):
        pass
    with pytest.raises(NotFound, match="neither a checkout"), versions.version_of(str(tmp_path)):
        pass


def test_an_environment_is_run_by_its_own_interpreter(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    with versions.version_of(str(tmp_path)) as version:
        assert version.python == str(python)


def test_a_revision_is_checked_out_beside_this_one():
    with versions.version_of("HEAD") as version:
        assert (version.checkout / "serving" / "__init__.py").exists()
    assert not version.checkout.exists()


def test_a_process_that_is_gone_has_no_memory():
    with pytest.raises((StepFailed, OSError)):
        check.resident_mib(2**30)
