"""`make zoo` goes on past what fails or has no data, says so, and leaves alone what is there."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STANDS_IN = """#!/bin/sh
echo "$@" >> calls
case "$1 $2" in
    "train missed") exit 1;;
    "train below") mkdir -p artifacts/below; touch artifacts/below/training.json; exit 1;;
    "train without_data") exit 4;;
    "train "*) mkdir -p "artifacts/$2/saved_model";;
    "export artifacts/unproven") exit 1;;
    "export "*) mkdir -p "model_repository/${2#artifacts/}${3:+_step}";;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout as far as make looks at it, with a command line that only notes its words."""
    for name in ("requirements/cpu.txt", "pyproject.toml", "installed", "bin/ridgeline"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(STANDS_IN)
    os.utime(tmp_path / "installed", (2**31, 2**31))
    (tmp_path / "bin/ridgeline").chmod(0o755)
    (tmp_path / "training/recipes").mkdir(parents=True)
    return tmp_path


def make_zoo(checkout: Path, *recipes: str) -> subprocess.CompletedProcess[str]:
    for name in recipes:
        (checkout / f"training/recipes/{name}.toml").touch()
    words = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "zoo"]
    given = ["BIN=bin", "INSTALLED=installed"]
    return subprocess.run(
        [*words, *given], cwd=checkout, capture_output=True, text=True, check=False
    )


def calls(checkout: Path) -> list[str]:
    return (checkout / "calls").read_text().splitlines()


def test_recipes_without_data_are_skipped_with_a_word_and_the_others_are_made(
    checkout: Path,
) -> None:
    done = make_zoo(checkout, "first", "without_data", "zlast")
    assert done.returncode == 0, done.stderr
    assert "skipped, their data or packages are not here: without_data" in done.stdout
    assert calls(checkout) == [
        "train first",
        "export artifacts/first",
        "train without_data",
        "train zlast",
        "export artifacts/zlast",
    ]
    again = make_zoo(checkout)
    assert again.returncode == 0
    assert calls(checkout)[5:] == ["train without_data"]
    assert "in model_repository/: first zlast" in again.stdout


def test_language_models_are_exported_as_a_whole_and_word_by_word(checkout: Path) -> None:
    for _ in range(2):  # the second time all is there
        assert make_zoo(checkout, "gru_language", "mlp").returncode == 0
    assert calls(checkout) == [
        "train gru_language",
        "export artifacts/gru_language",
        "export artifacts/gru_language --stateful",
        "train mlp",
        "export artifacts/mlp",
    ]


def test_what_fails_is_named_at_the_end_after_all_others_were_made(checkout: Path) -> None:
    done = make_zoo(checkout, "missed", "unproven", "zlast")
    assert done.returncode != 0
    assert "failed: missed unproven" in done.stdout
    assert (checkout / "model_repository/zlast").is_dir()


def test_what_missed_its_target_is_trained_again_only_after_its_recipe_was_changed(
    checkout: Path,
) -> None:
    first = make_zoo(checkout, "below")
    assert first.returncode != 0
    assert "failed: below" in first.stdout
    os.utime(checkout / "training/recipes/below.toml", (1, 1))
    again = make_zoo(checkout, "zlast")
    assert again.returncode != 0
    assert "remove artifacts/<name> to train anew): below" in again.stdout
    assert "in model_repository/: zlast" in again.stdout
    assert calls(checkout) == ["train below", "train zlast", "export artifacts/zlast"]
    os.utime(checkout / "training/recipes/below.toml", (2**31, 2**31))
    make_zoo(checkout)
    assert calls(checkout)[3:] == ["train below"]
