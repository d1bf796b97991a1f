"""What is published beside a graph: its configuration, and a card with all that is known of it."""

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from export.artifact import Artifact
from export.judging import Judgement
from export.stateful import sequence_config
from ridgeline.cost import ModelCost
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard

_KEPT = (
    *("model", "task", "seed", "untrained", "preprocessing"),
    *("test_accuracy", "test_correct", "test_samples"),
)
_PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy")


def configuration(
    spec: ModelSpec, *, cost: ModelCost | None, states: tuple[TensorSpec, ...] = ()
) -> Any:
    """config.pbtxt, with the cost among its parameters, where any client can read it.

    `states` are those of sequences, which the server keeps.
    """
    config = sequence_config(spec, states=states) if states else config_of(spec)
    for key, value in (cost.to_parameters() if cost else {}).items():
        config.parameters[key].string_value = value
    return config


def card(
    artifact: Artifact,
    *,
    cost: ModelCost | None,
    parity: Mapping[str, Any],
    judgements: Mapping[str, Judgement],
    variant: Mapping[str, Any],
) -> ModelCard:
    """The model card.

    `judgements` by what was judged: "trained", "exported", of a variant also the "full" graph, of
    which `variant` tells the name and the gain. The proof of parity is then the full graph's, too.
    """
    training = {key: artifact.training[key] for key in _KEPT if key in artifact.training}
    training["accuracy"] = accuracies(judgements)
    if "exported" in judgements:
        training["measures"] = dict(judgements["exported"].measures)
    elif "measures" in artifact.training:
        training["measures"] = artifact.training["measures"]
    if variant:
        training["variant"] = {**variant, "full": dict(judgements["full"].measures)}
    versions = {package: _version(package) for package in _PACKAGES}
    installed = {package: version for package, version in versions.items() if version}
    return ModelCard(
        cost=cost,
        parity=parity,
        training=training,
        packages={"python": platform.python_version(), **installed},
    )


def accuracies(judgements: Mapping[str, Judgement], /) -> dict[str, Any]:
    """Right answers by what was judged, where they can be counted."""
    return {
        which: found.accuracy.to_table() for which, found in judgements.items() if found.accuracy
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
