"""`budgets.toml`: what it holds, and what is refused."""

from pathlib import Path

import pytest

from ridgeline.budget import ScenarioBudget, parse_budgets, read_budgets
from ridgeline.errors import InvalidInput, NotFound

ROOT = Path(__file__).parents[2]


def write(tmp_path, text):
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    return path


def test_a_file_with_comments_is_read(tmp_path):
    path = write(
        tmp_path,
        """
        # people notice these
        [server]
        memory_mib = 500
        [models.net]
        load_time_s = 1
        [models.net.server]      # Poisson
        rate_per_s = 100
        p99_ms = 10
        [models."other.net".single-stream]
        p50_to_floor = 3.5
        [regression]
        p50 = 1.05
        """,
    )
    budgets = read_budgets(path)
    assert budgets.scenarios == (
        ScenarioBudget("net", "server", {"p99_ms": 10.0}, {"rate_per_s": 100.0}),
        ScenarioBudget("other.net", "single-stream", {"p50_to_floor": 3.5}),
    )
    assert budgets.server == {"memory_mib": 500}
    assert budgets.load_times_s == {"net": 1}
    assert budgets.regression == {"p50": 1.05}
    assert budgets.models == ("net", "other.net")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no model has a budget"),
        ("[serving]\nx = 1", "the file has no key 'serving'; there are server, models"),
        ("[models.net.single-stream]\np98_ms = 1", "single-stream has no key 'p98_ms'"),
        ("[models.net.batch]\np50_ms = 1", "models.net has no key 'batch'"),
        ("[models.net.server]\np50_ms = 1", "models.net.server needs rate_per_s"),
        ("[models.net.single-stream]\np50_ms = 0", "p50_ms must be a positive number, received 0"),
        ("[models.net.single-stream]\np50_ms = true", "must be a positive number"),
        ("[models.net.offline]\nconcurrency = 1.5", "must be a whole number"),
        ("[models]\nnet = 3", "models.net must be a table, received 3"),
        ("models = 3", "models must be a table"),
        ("[models.net]\nload_time_s = 1\n[regression]\np50 = 0.9", "must be above 1"),
        ("[models.net]\nload_time_s = 1\n[regression]\nthroughput = 1.1", "below 1"),
        ("[models", "is not TOML"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(tmp_path, text, told):
    with pytest.raises(InvalidInput, match=r"budgets\.toml") as caught:
        read_budgets(write(tmp_path, text))
    assert told in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"none\.toml"):
        read_budgets(tmp_path / "none.toml")


def test_the_projects_own_budgets_can_be_read():
    assert read_budgets(ROOT / "budgets.toml").models == ("lenet5", "cnn78")


def test_a_table_is_enough():
    assert parse_budgets({"models": {"net": {"load_time_s": 2}}}).models == ("net",)
