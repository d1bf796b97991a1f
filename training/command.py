"""`ridgeline train`: one training run, from a recipe to an artifact."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ridgeline.errors import TargetMissed
from training import framework
from training import recipe as recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline train`, and the list of shipped recipes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _epilog()
    parser.add_argument(
        "recipe",
        metavar="RECIPE|MODEL",
        help="a TOML file, or the name of a shipped recipe",
    )
    parser.add_argument("--epochs", type=_from_one, metavar="N", help="instead of the recipe's")
    parser.add_argument("--seed", type=_seed, metavar="S", help="instead of the recipe's")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("artifacts"),
        metavar="DIR",
        help="folder that receives <model>/ (default: artifacts)",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Train, and write the artifact; returns training.json's content and the artifact's folder.

    Raises TargetMissed where the network ends below the accuracy that its recipe requires.
    """
    recipe = recipes.read(recipes.find(arguments.recipe))
    given = {"epochs": arguments.epochs, "seed": arguments.seed}
    recipe = dataclasses.replace(
        recipe, **{name: value for name, value in given.items() if value is not None}
    )

    framework.load()
    from training import artifact
    from training.fit import fit
    from training.progress import ProgressBar

    artifact.check_writable(arguments.output)
    with ProgressBar(f"training {recipe.model}") as progress:
        outcome = fit(recipe, callbacks=[progress])
    report = artifact.write(outcome, recipe=recipe, output=arguments.output)
    folder = arguments.output / recipe.model
    if not report["reached"]:
        raise TargetMissed(
            f"{recipe.model} classes {outcome.test_correct:,} of {len(outcome.test):,} test "
            f"samples rightly ({outcome.test_accuracy:.2%}), its recipe requires "
            f"{recipe.required_accuracy:.2%}; {folder} holds the curve and nothing to export"
        )
    return {**report, "artifact": str(folder)}


def show(result: Mapping[str, Any]) -> None:
    """Print a summary of the run."""
    seconds, epochs = result["train_seconds"], len(result["curve"])
    console = Console(highlight=False)
    console.print(
        f"[bold]{result['model']}[/bold]: {result['test_accuracy']:.2%} of the test set "
        f"({result['test_correct']:,} of {result['test_samples']:,}), "
        f"required {result['required_accuracy']:.2%}"
    )
    console.print(
        f"{result['parameters']:,} parameters, {epochs} epochs in {seconds:.1f} s, "
        f"seed {result['seed']}"
    )
    console.print(f"written to {escape(result['artifact'])}", soft_wrap=True)


def _epilog() -> str:
    lines = ["shipped recipes, with the accuracy on the test set that each must reach:"]
    for name, path in recipes.shipped().items():
        recipe = recipes.read(path)
        lines.append(f"  {name:<12}  {recipe.required_accuracy:>6.1%}  {recipe.description}")
    lines.append("")
    lines.append("Below that accuracy the command fails, and leaves nothing to export.")
    return "\n".join(lines)


def _from_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, received {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > recipes.LARGEST_SEED:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to {recipes.LARGEST_SEED}, received {text!r}"
        )
    return int(text)
