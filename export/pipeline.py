"""Export, step by step: convert, count, prove, publish. Loads TensorFlow."""

import importlib.metadata
import io
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.artifact import Artifact, read_artifact
from export.convert import convert
from export.parity import Accuracy, Parity, accuracy, prove, runner
from export.saved_model import SavedModel
from ridgeline import graph
from ridgeline.cost import ModelCost
from ridgeline.datatypes import datatype
from ridgeline.errors import InvalidInput, ParityFailed
from ridgeline.model import FREE, ModelSpec, TensorSpec, config_of
from ridgeline.repository import MODEL_FILE, ModelCard, publish

_GOLDEN_SAMPLES = 64
_GOLDEN_FREE_SIZE = 16  # what stands for a free axis in random golden inputs
_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class ExportSettings:
    """What to publish, under which name (None: the artifact's), for batches of how many rows."""

    source: Path
    repository: Path
    name: str | None = None
    max_batch_size: int = 64

    def __post_init__(self) -> None:
        if self.max_batch_size < 1:
            raise InvalidInput(f"max-batch-size must be positive, received {self.max_batch_size}")


def export(settings: ExportSettings) -> dict[str, Any]:
    """Export one model; returns what was published, as JSON.

    Raises a RidgelineError, with nothing published, where a step fails.
    """
    begin = time.monotonic()
    artifact = read_artifact(settings.source)
    name = settings.name or artifact.name
    saved = SavedModel(artifact.saved_model)
    spec = _spec(saved, name=name, max_batch_size=settings.max_batch_size)
    model = convert(saved, name=name)
    cost = _cost(model)
    golden = _golden(artifact, saved=saved)
    serialised = model.SerializeToString()
    exported = runner(serialised)
    batch_sizes = sorted({1, 3, min(8, spec.max_batch_size), spec.max_batch_size})
    parity = prove(saved.run, exported, golden=golden, batch_sizes=batch_sizes)
    accuracies = _accuracies(artifact, saved=saved, exported=serialised)
    directory = publish(
        {MODEL_FILE: serialised, "golden.npz": _golden_file(golden, saved=saved)},
        config=_config(spec, cost=cost),
        card=_card(artifact, cost=cost, parity=parity, accuracies=accuracies),
        labels=artifact.training.get("labels", {}),
        root=settings.repository,
    )
    return {
        "name": name,
        "version": int(directory.name),
        "directory": str(directory),
        "cost": {**asdict(cost), "flops_per_sample": cost.flops_per_sample} if cost else None,
        "parity": parity.to_table(),
        "accuracy": {key: value.to_table() for key, value in accuracies.items()},
        "max_batch_size": spec.max_batch_size,
        "seconds": round(time.monotonic() - begin, 2),
    }


def _spec(saved: SavedModel, *, name: str, max_batch_size: int) -> ModelSpec:
    """The contract per sample: the signature's shapes without their batch axis."""
    return ModelSpec(
        name=name,
        max_batch_size=max_batch_size,
        inputs=tuple(replace(tensor, shape=tensor.shape[1:]) for tensor in saved.inputs),
        outputs=tuple(replace(tensor, shape=tensor.shape[1:]) for tensor in saved.outputs),
    )


def _cost(model: onnx.ModelProto) -> ModelCost | None:
    """The cost of the graph; None where a free axis leaves it open."""
    try:
        return graph.cost_of(model, batches=True)
    except InvalidInput:
        return None


def _config(spec: ModelSpec, *, cost: ModelCost | None) -> Any:
    config = config_of(spec)
    for key, value in (cost.to_parameters() if cost else {}).items():
        config.parameters[key].string_value = value
    return config


def _golden(artifact: Artifact, *, saved: SavedModel) -> dict[str, np.ndarray]:
    """The first samples of the test set, or seeded random ones; checked against the signature."""
    if not artifact.evaluation:
        random = np.random.default_rng(0)
        return {tensor.name: _random(tensor, random=random) for tensor in saved.inputs}
    expected = {tensor.name for tensor in saved.inputs}
    if artifact.evaluation.keys() != expected:
        raise InvalidInput(
            f"the evaluation set has the inputs {sorted(artifact.evaluation)}, "
            f"the SavedModel expects {sorted(expected)}"
        )
    return {name: array[:_GOLDEN_SAMPLES] for name, array in artifact.evaluation.items()}


def _random(tensor: TensorSpec, *, random: np.random.Generator) -> np.ndarray:
    sizes = [_GOLDEN_FREE_SIZE if size == FREE else size for size in tensor.shape[1:]]
    shape = (_GOLDEN_SAMPLES, *sizes)
    dtype = datatype(tensor.datatype).numpy
    if dtype.kind in "iub":
        return random.integers(0, 2, size=shape).astype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(size=shape).astype(dtype)
    raise InvalidInput(f"no golden inputs can be made for {tensor.datatype} input {tensor.name!r}")


def _golden_file(golden: Mapping[str, np.ndarray], *, saved: SavedModel) -> bytes:
    """The golden inputs and TensorFlow's answers, for whoever checks this version later."""
    arrays = {f"input:{name}": array for name, array in golden.items()}
    arrays |= {f"output:{name}": array for name, array in saved.run(golden).items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _accuracies(artifact: Artifact, *, saved: SavedModel, exported: bytes) -> dict[str, Accuracy]:
    """Right answers over the whole test set, before and after; they must be equally many."""
    if artifact.labels is None:
        return {}
    found = {
        name: accuracy(
            run,
            inputs=artifact.evaluation,
            labels=artifact.labels,
            batch_size=_EVALUATION_BATCH,
        )
        for name, run in (("trained", saved.run), ("exported", runner(exported)))
    }
    if found["trained"] != found["exported"]:
        raise ParityFailed(
            f"before export {found['trained'].correct} of {found['trained'].samples} samples were "
            f"right, after it {found['exported'].correct}"
        )
    return found


def _card(
    artifact: Artifact,
    *,
    cost: ModelCost | None,
    parity: Parity,
    accuracies: Mapping[str, Accuracy],
) -> ModelCard:
    kept = ("model", "task", "seed", "test_accuracy", "test_correct", "test_samples")
    training = {key: artifact.training[key] for key in kept if key in artifact.training}
    training["accuracy"] = {key: value.to_table() for key, value in accuracies.items()}
    packages = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy")
    installed = {package: _version(package) for package in packages}
    versions = {package: version for package, version in installed.items() if version}
    return ModelCard(
        cost=cost,
        parity=parity.to_table(),
        training=training,
        packages={"python": platform.python_version(), **versions},
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
