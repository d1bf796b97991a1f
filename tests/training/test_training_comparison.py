"""Comparisons: the interval is Student's, and the exit code says whether a part pays."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput
from training import comparison
from training.comparison import Comparison, compare, main
from training.recipe import Augmentation, Recipe

Make = Callable[..., Recipe]


def measured(recipe: Recipe) -> Mapping[str, float]:
    """As if a run had found it: augmentation gains 2 points, and seeds differ."""
    return {"accuracy": 0.9 + 0.01 * recipe.seed + (0.02 if recipe.augmentation else 0)}


def test_pairs_of_runs_differ_in_the_part_alone(recipe: Make) -> None:
    seen: list[Recipe] = []

    def run(one: Recipe) -> Mapping[str, float]:
        seen.append(one)
        return measured(one)

    found = compare(
        recipe(augmentation=Augmentation(shift=0.1)), part="augmentation", seeds=(1, 2), run=run
    )
    assert [(one.seed, one.augmentation is None) for one in seen] == [
        *((1, False), (1, True), (2, False), (2, True)),
    ]
    assert found.having == pytest.approx((0.93, 0.94))
    assert found.gain == pytest.approx(0.02)
    assert found.measure == "accuracy"


def test_the_interval_is_that_of_students_distribution_over_the_differences() -> None:
    pytest.importorskip("scipy")
    found = Comparison("transfer", "accuracy", (1, 2, 3), (0.91, 0.92, 0.93), (0.9, 0.9, 0.9))
    low, high = found.interval
    # Differences 0.01, 0.02, 0.03: mean 0.02, deviation 0.01; t of two degrees of freedom: 4.3027.
    assert (low, high) == pytest.approx(
        (0.02 - 4.302653 * 0.01 / 3**0.5, 0.02 + 4.302653 * 0.01 / 3**0.5)
    )


def test_a_part_that_is_not_there_and_a_single_seed_are_refused(recipe: Make) -> None:
    with pytest.raises(InvalidInput, match="has no 'transfer' to leave out"):
        compare(recipe(), part="transfer", seeds=(1, 2), run=measured)
    with pytest.raises(InvalidInput, match=r"two seeds at least, received \[1\]"):
        compare(recipe(weights="imagenet"), part="weights", seeds=(1,), run=measured)


@pytest.mark.parametrize(("gains", "code"), [((0.02, 0.021, 0.019), 0), ((0.02, -0.03, 0.0), 1)])
def test_the_exit_code_says_whether_zero_is_excluded(
    gains: tuple[float, ...],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("scipy")

    def run(recipe: Recipe) -> Mapping[str, float]:
        return {"accuracy": 0.9 + (gains[recipe.seed - 1] if recipe.augmentation else 0)}

    monkeypatch.setattr(comparison, "_train", run)
    file = tmp_path / "result.json"
    words = ["lenet5", "--without", "augmentation", "--seeds", "3", "--output", str(file)]
    assert main(words) == code
    told = json.loads(file.read_text())
    assert told["lacking"] == [0.9, 0.9, 0.9]
    assert f"difference {100 * told['gain']:+.2f} points" in capsys.readouterr().out


def test_two_real_runs_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Make, few_digits: object
) -> None:
    pytest.importorskip("scipy")
    assert few_digits
    quick = recipe(model="perceptron", augmentation=Augmentation(shift=0.1), epochs=1)
    monkeypatch.setattr(comparison.recipes, "read", lambda _path: quick)
    file = tmp_path / "result.json"
    main(["lenet5", "--without", "augmentation", "--seeds", "2", "--output", str(file)])
    assert all(0.3 < share < 1 for share in json.loads(file.read_text())["having"])


def test_a_wrong_recipe_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["absent", "--without", "transfer"]) == 1
    assert capsys.readouterr().err.startswith("training.comparison: there is no file absent")
