"""`ridgeline train`: one training run, from a recipe to an artifact."""

import argparse
import contextlib
import dataclasses
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ridgeline.children import side_by_side
from ridgeline.errors import TargetMissed
from ridgeline.measures import AT_MOST
from training import framework
from training import recipe as recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline train`, and the list of shipped recipes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _epilog()
    parser.add_argument(
        "recipe",
        metavar="RECIPE|MODEL",
        help="a TOML file, or the name of a shipped recipe; with --untrained that of a network",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="train nothing: write <network>_untrained with random weights, to look at its cost",
    )
    parser.add_argument("--epochs", type=_from_one, metavar="N", help="instead of the recipe's")
    parser.add_argument("--seed", type=_seed, metavar="S", help="instead of the recipe's")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="the files of a data set that does not come with the project; for the recipe `images` "
        "your own, FOLDER/<class>/*.png or *.jpg",
    )
    parser.add_argument(
        "--name", type=_name, help="of the artifact and the published model, not the recipe's"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("artifacts"),
        metavar="DIR",
        help="folder that receives <model>/ (default: artifacts)",
    )
    parser.add_argument(
        "--workers",
        type=_from_one,
        default=1,
        metavar="N",
        help="processes on this machine that share each batch; on several machines set TF_CONFIG",
    )
    parser.add_argument(
        "--restart", action="store_true", help="from the beginning, though a killed run left off"
    )
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="folder that receives the curve's events"
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Train, and write the artifact; returns training.json's content and the artifact's folder.

    Raises TargetMissed where the network misses what its recipe requires.
    """
    if arguments.untrained:
        return _untrained(arguments)
    recipe = recipes.read(recipes.find(arguments.recipe))
    given = {key: getattr(arguments, key) for key in ("epochs", "seed", "data", "name")}
    recipe = dataclasses.replace(
        recipe, **{name: value for name, value in given.items() if value is not None}
    )
    if arguments.workers > 1:
        return _together(arguments)

    framework.load()
    from training import artifact, workers
    from training.checkpoint import Checkpoint
    from training.fit import fit
    from training.progress import ProgressBar

    team = workers.join()
    artifact.check_writable(arguments.output)
    kept = Checkpoint(arguments.output, recipe=recipe, workers=team.count)
    if arguments.restart and team.is_chief:
        kept.remove()
    with ProgressBar(f"training {recipe.artifact}") as progress:
        outcome = fit(recipe, watch=progress, kept=kept, logs=arguments.tensorboard)
    if team.is_chief:
        report = artifact.write(outcome, recipe=recipe, output=arguments.output)
        kept.remove()
    else:
        report = artifact.describe(outcome, recipe=recipe)
    team.wait()  # none leaves the others behind
    folder = arguments.output / recipe.artifact
    if not report["reached"]:
        raise TargetMissed(
            f"{recipe.artifact} shows {_measures(report)} on {len(outcome.test):,} test samples, "
            f"its recipe requires {_bounds(report)}; {folder} holds the curve and nothing to export"
        )
    return {**report, "artifact": str(folder)}


def _untrained(arguments: argparse.Namespace) -> Mapping[str, Any]:
    framework.load()
    from training import untrained

    seed = 1 if arguments.seed is None else arguments.seed
    return untrained.write(arguments.recipe, seed=seed, output=arguments.output)


def _together(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The same command in that many processes; the result is the first one's."""
    flags = ("epochs", "seed", "data", "name", "output", "tensorboard", "log_level")
    words: list[object] = ["train", arguments.recipe]
    for flag in flags:
        if (value := getattr(arguments, flag)) is not None:
            words += [f"--{flag.replace('_', '-')}", value]
    if arguments.restart:
        words.append("--restart")
    environments = [{"TF_CONFIG": text} for text in _clusters(arguments.workers)]
    return side_by_side(*words, environments=environments)


def _clusters(count: int) -> list[str]:
    """A TF_CONFIG for each of so many workers on this machine, on ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        addresses = ["{}:{}".format(*held.getsockname()) for held in sockets]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


def show(result: Mapping[str, Any]) -> None:
    """Print a summary of the run."""
    if result.get("untrained"):
        print(f"{result['model']}: {result['parameters']:,} random weights, seed {result['seed']}")
        print(f"written to {result['artifact']}")
        return
    seconds, epochs = result["train_seconds"], len(result["curve"])
    console = Console(highlight=False)
    console.print(
        f"[bold]{result['model']}[/bold]: {_measures(result)} on the test set "
        f"({result['test_samples']:,} samples), required {_bounds(result)}"
    )
    console.print(
        f"{result['parameters']:,} parameters, {epochs} epochs in {seconds:.1f} s "
        f"({result['train_flops_per_s'] / 1e9:.1f} GFLOP/s), seed {result['seed']}"
    )
    console.print(f"written to {escape(result['artifact'])}", soft_wrap=True)


def _measures(report: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_words(name)} {'not a number' if value is None else f'{value:.2%}'}"
        for name, value in report["measures"].items()
    )


def _bounds(report: Mapping[str, Any]) -> str:
    return _required(report["required"])


def _required(bounds: Mapping[str, float]) -> str:
    return ", ".join(
        f"{_words(name)} {'at most' if name in AT_MOST else 'at least'} {bound:.1%}"
        for name, bound in bounds.items()
    )


def _words(name: str) -> str:
    return name.replace("_", " ").replace("iou", "IoU")


def _epilog() -> str:
    lines = ["shipped recipes, what each must reach on the test set, and minutes on two cores:"]
    for name, path in recipes.shipped().items():
        recipe = recipes.read(path)
        minutes = "" if recipe.minutes is None else f"{recipe.minutes:g} min"
        lines.append(f"  {name:<22}  {minutes:>8}  {_required(recipe.bounds)}")
        lines.append(f"  {'':<22}  {'':>8}  {recipe.description}")
    lines.append("")
    lines.append("Where that is missed the command fails, and leaves nothing to export. A run that")
    lines.append("was killed goes on after its last whole epoch when the same command comes again.")
    return "\n".join(lines)


def _from_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, received {text!r}")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(
            f"must be letters, digits, '.', '_' and '-', received {text!r}"
        )
    return text


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > recipes.LARGEST_SEED:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to {recipes.LARGEST_SEED}, received {text!r}"
        )
    return int(text)
