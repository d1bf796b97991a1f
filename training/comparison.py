"""Whether a part of a recipe pays: the same seeds with it and without it, and an interval.

    python -m training.comparison transfer_digits8 --without transfer --seeds 5

Both runs of a pair draw the same samples and begin from the same seed, so what is told is the mean
of the differences, with Student's interval over the seeds. Exit code 1 where it includes zero.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ridgeline.errors import InvalidInput, RidgelineError
from training import framework
from training import recipe as recipes
from training.recipe import Recipe

PARTS = ("augmentation", "transfer", "weights")
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """What the test set showed for each seed, with the part and without it."""

    part: str
    measure: str
    seeds: tuple[int, ...]
    having: tuple[float, ...]
    lacking: tuple[float, ...]

    @property
    def gain(self) -> float:
        """The mean of the differences."""
        return float(np.mean(self._differences))

    @property
    def interval(self) -> tuple[float, float]:
        """Where the mean lies with 95 % confidence, differences being taken for normal."""
        from scipy import stats

        differences = self._differences
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, df=len(differences) - 1) * error)
        return self.gain - reach, self.gain + reach

    def to_table(self) -> dict[str, Any]:
        """As JSON."""
        return {**dataclasses.asdict(self), "gain": self.gain, "interval": list(self.interval)}

    @property
    def _differences(self) -> Any:
        return np.subtract(self.having, self.lacking)


def compare(
    recipe: Recipe, *, part: str, seeds: Sequence[int], run: Callable[[Recipe], Mapping[str, float]]
) -> Comparison:
    """Run the recipe with each seed, with and without the part; `run` gives a run's measures.

    Raises InvalidInput where the recipe has no such part, or with fewer than two seeds.
    """
    if getattr(recipe, part) is None:
        raise InvalidInput(f"the recipe has no {part!r} to leave out")
    if len(seeds) < 2:
        raise InvalidInput(f"an interval needs two seeds at least, received {list(seeds)}")
    measure = next(iter(recipe.bounds))
    left_out: dict[str, Any] = {part: None}
    having, lacking = [], []
    for seed in seeds:
        seeded = dataclasses.replace(recipe, seed=seed)
        having.append(float(run(seeded)[measure]))
        lacking.append(float(run(dataclasses.replace(seeded, **left_out))[measure]))
    return Comparison(part, measure, tuple(seeds), tuple(having), tuple(lacking))


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.comparison", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, or a shipped recipe")
    parser.add_argument("--without", choices=PARTS, required=True, help="what is left out")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="1 to N (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="receives the result as JSON")
    arguments = parser.parse_args(words)
    try:
        recipe = recipes.read(recipes.find(arguments.recipe))
        found = compare(
            recipe, part=arguments.without, seeds=range(1, arguments.seeds + 1), run=_train
        )
    except RidgelineError as error:
        print(f"training.comparison: {error}", file=sys.stderr)
        return 1
    if arguments.output:
        arguments.output.write_text(json.dumps(found.to_table(), indent=2) + "\n")
    _show(found)
    low, high = found.interval
    return 0 if low > 0 or high < 0 else 1


def _train(recipe: Recipe) -> Mapping[str, float]:
    framework.load()
    import keras

    from training.fit import fit

    measures = fit(recipe).measures
    keras.backend.clear_session()
    return measures


def _show(found: Comparison) -> None:
    low, high = found.interval
    table = Table(title=found.measure.replace("_", " "))
    for heading in ("seed", f"with {found.part}", f"without {found.part}"):
        table.add_column(heading, justify="right")
    for seed, one, other in zip(found.seeds, found.having, found.lacking, strict=True):
        table.add_row(str(seed), f"{one:.2%}", f"{other:.2%}")
    table.add_section()
    table.add_row("mean", f"{np.mean(found.having):.2%}", f"{np.mean(found.lacking):.2%}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"difference {100 * found.gain:+.2f} points, "
        f"95 % confidence {100 * low:+.2f} to {100 * high:+.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
