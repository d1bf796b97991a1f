"""The command `ridgeline models`: what a repository holds, broken models with their reason."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tritonclient.grpc.model_config_pb2 import ModelConfig

from ridgeline.errors import NotFound, RidgelineError
from ridgeline.model import ModelSpec, TensorSpec, spec_of
from ridgeline.repository import (
    MODEL_FILE,
    ModelCard,
    RepositoryModel,
    check_digests,
    read_card,
    scan,
)

_BACKEND = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The repository to list."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository to list (default: model_repository)",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Every model of the repository. Raises NotFound where there is no repository."""
    return {
        "repository": str(arguments.repository),
        "models": [_described(model) for model in scan(arguments.repository)],
    }


def show(result: Mapping[str, Any]) -> None:
    """One row per model: its newest version's figures."""
    if not result["models"]:
        print(f"{result['repository']} holds no model; `ridgeline export` publishes one")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 1, 0))
    for heading in ("model", "inputs -> outputs"):
        table.add_column(heading, overflow="fold")
    for heading in ("per sample", "as exported"):
        table.add_column(heading, no_wrap=True)
    for model in result["models"]:
        table.add_row(*map(escape, _row(model)))  # rich reads brackets as markup
    Console().print(table)
    for model in result["models"]:
        if model["problem"]:
            print(f"{model['name']}: {model['problem']}")


def _described(model: RepositoryModel) -> dict[str, Any]:
    """What is known of a model; a broken one carries its `problem` instead of stopping the list."""
    described: dict[str, Any] = {"name": model.name, "versions": list(model.versions)}
    described |= {"inputs": None, "outputs": None, "card": None, "problem": None}
    described["stateful"] = False
    try:
        if not model.versions:
            raise NotFound(f"no version; expected {model.directory / '1' / MODEL_FILE}")
        config = model.read_config()
        described["stateful"] = bool(config and config.HasField("sequence_batching"))
        if config and config.input and config.output:
            spec = spec_of(config)
            described["inputs"] = _tensors(spec.inputs, spec=spec)
            described["outputs"] = _tensors(spec.outputs, spec=spec)
        directory = model.version_directory(model.versions[-1])
        _check_file(directory, config=config)
        card = read_card(directory)
        if card:
            described["card"] = _card(card)
            check_digests(directory, card=card)
    except (RidgelineError, OSError) as error:
        described["problem"] = str(error)
    return described


def _check_file(directory: Path, *, config: ModelConfig | None) -> None:
    """Of other backends' files nothing is known here, and an ensemble has none."""
    if config is None or (config.backend in ("", _BACKEND) and config.platform != "ensemble"):
        path = directory / ((config and config.default_model_filename) or MODEL_FILE)
        if not path.is_file():
            raise NotFound(f"{path} is missing")


def _tensors(tensors: tuple[TensorSpec, ...], *, spec: ModelSpec) -> list[dict[str, Any]]:
    return [
        {"name": tensor.name, "datatype": tensor.datatype, "shape": spec.full_shape(tensor)}
        for tensor in tensors
    ]


def _card(card: ModelCard) -> dict[str, Any]:
    table = asdict(card)
    if card.cost:
        table["cost"]["flops_per_sample"] = card.cost.flops_per_sample
    return table


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    card = model["card"] or {}
    versions = ", ".join(map(str, model["versions"])) or "none"
    stateful = "\none step, stateful" if model["stateful"] else ""
    error = _number(card, "parity", "max_relative_error")
    proof = "no proof" if error is None else f"error {error:.0e}"
    return (
        f"{model['name']}\nversion {versions}{stateful}",
        _contract(model),
        _counts(card["cost"]) if card.get("cost") else "unknown",
        "\n".join([proof, *_measures(card), *_speed(card)]),
    )


def _measures(card: Mapping[str, Any]) -> list[str]:
    """What the test set showed: of the exported graph where that was measured, else in training."""
    training = card.get("training") or {}
    accuracy = _number(training, "accuracy", "exported", "accuracy")
    measures = training.get("measures")
    told = dict(measures) if isinstance(measures, Mapping) else {}
    if accuracy is not None:
        told["accuracy"] = accuracy
    if training.get("untrained"):
        return ["untrained"]
    return [
        f"{name.replace('_', ' ').replace('iou', 'IoU')} {100 * value:.2f} %"
        for name, value in told.items()
        if isinstance(value, int | float)
    ]


def _speed(card: Mapping[str, Any]) -> list[str]:
    """How fast a graph at a lower precision is beside the full one, by batch size."""
    variant = (card.get("training") or {}).get("variant")
    speed = variant.get("speed") if isinstance(variant, Mapping) else None
    return [
        f"{batch.replace('_', ' ')}: {gain:.2f} ({low:.2f}-{high:.2f}) times as fast"
        for batch in (speed if isinstance(speed, Mapping) else ())
        for gain, low, high in [[_number(speed, batch, key) for key in ("gain", "low", "high")]]
        if gain is not None and low is not None and high is not None
    ]


def _number(table: Any, *path: str) -> float | None:
    """A number deep in what the stages wrote into a card; None where it is not there."""
    for key in path:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table if isinstance(table, int | float) else None


def _counts(cost: Mapping[str, int]) -> str:
    return f"{cost['flops_per_sample']:,} FLOPs\n{cost['parameters']:,} weights"


def _contract(model: Mapping[str, Any]) -> str:
    """Inputs and outputs, one a line."""
    if model["inputs"] is None:
        return "unknown" if model["problem"] else "from the graph"
    arrows = [""] * len(model["inputs"]) + ["-> "] * len(model["outputs"])
    return "\n".join(
        f"{arrow}{tensor['name']} {tensor['datatype']}[{','.join(map(str, tensor['shape']))}]"
        for arrow, tensor in zip(arrows, (*model["inputs"], *model["outputs"]), strict=True)
    )
