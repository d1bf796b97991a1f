"""Export, step by step: convert, count, prove, publish. Loads TensorFlow."""

import importlib.metadata
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from export import variants
from export.artifact import Artifact, read_artifact
from export.convert import convert
from export.golden import golden_file, golden_inputs
from export.parity import Accuracy, Parity, Run, accuracy, prove, runner
from export.saved_model import SavedModel
from export.settings import ExportSettings
from export.stateful import Step, sequence_config, sequences_of
from ridgeline import graph as graphs
from ridgeline.cost import ModelCost
from ridgeline.errors import InvalidInput, ParityFailed, Unsupported
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import MODEL_FILE, ModelCard, publish

logger = logging.getLogger(__name__)

_EVALUATION_BATCH = 500
_PROOF_FLOPS = 10**11  # of all golden inputs at one batch size: a second or so on two cores
_FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class _Graph:
    """What is published: a graph, what runs it, and what was found out about it."""

    spec: ModelSpec
    model: onnx.ModelProto
    serialised: bytes
    run: Run
    parity: Parity
    outputs: Mapping[str, np.ndarray]  # for the golden inputs
    accuracies: Mapping[str, Accuracy]
    speed: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[TensorSpec, ...] = ()  # of a sequence, which the server keeps


def export(settings: ExportSettings) -> dict[str, Any]:
    """Export one model; returns what was published, as JSON.

    Raises a RidgelineError, with nothing published, where a step fails.
    """
    begin = time.monotonic()
    artifact = read_artifact(settings.source)
    saved = SavedModel(artifact.saved_model)
    proven = _proven_step if settings.stateful else _proven
    golden, graph = proven(artifact, saved=saved, settings=settings)
    if settings.variant:
        graph = _variant(graph, artifact, golden=golden, variant=settings.variant)
    cost = _cost(graph.model)
    directory = publish(
        {MODEL_FILE: graph.serialised, "golden.npz": golden_file(golden, outputs=graph.outputs)},
        config=_config(graph, cost=cost),
        card=_card(artifact, graph=graph, cost=cost),
        labels=artifact.classes,
        root=settings.repository,
    )
    return {
        "name": graph.spec.name,
        "version": int(directory.name),
        "directory": str(directory),
        "cost": {**asdict(cost), "flops_per_sample": cost.flops_per_sample} if cost else None,
        "parity": graph.parity.to_table(),
        "accuracy": {key: value.to_table() for key, value in graph.accuracies.items()},
        "speed": graph.speed,
        "max_batch_size": graph.spec.max_batch_size,
        "opset": graph.model.opset_import[0].version,
        "file_bytes": len(graph.serialised),
        "seconds": round(time.monotonic() - begin, 2),
    }


def _proven(
    artifact: Artifact, *, saved: SavedModel, settings: ExportSettings
) -> tuple[dict[str, np.ndarray], _Graph]:
    """The golden inputs, and the graph that answers as TensorFlow does."""
    name = settings.name or artifact.name
    spec = _spec(saved, name=name, max_batch_size=settings.max_batch_size)
    golden = golden_inputs(artifact, saved=saved)
    model = convert(saved, name=name)
    cost = _cost(model)
    golden = _affordable(golden, cost=cost)
    serialised = model.SerializeToString()
    exported = runner(serialised, name=name)
    parity = prove(
        saved.run,
        exported,
        golden=golden,
        batch_sizes=_batch_sizes(spec, golden=golden, cost=cost),
        relative_tolerance=settings.relative_tolerance,
    )
    accuracies = _accuracies(artifact, saved=saved, exported=exported)
    return golden, _Graph(spec, model, serialised, exported, parity, saved.run(golden), accuracies)


def _proven_step(
    artifact: Artifact, *, saved: SavedModel, settings: ExportSettings
) -> tuple[dict[str, np.ndarray], _Graph]:
    """The same for one step at a time: over whole sequences it answers as the whole network."""
    step = Step(artifact, whole=saved, name=f"{settings.name or artifact.name}_step")
    model = convert(step.saved, name=step.name)
    serialised = model.SerializeToString()
    exported = runner(serialised, name=step.name)
    spec = step.spec(max_batch_size=settings.max_batch_size)
    sequences = _affordable(sequences_of(artifact, whole=saved), cost=_cost(model))
    step.answer(sequences)
    parity = prove(
        step.reference,
        step.unrolled(exported),
        golden=sequences,
        batch_sizes=sorted({1, spec.max_batch_size}),
        relative_tolerance=settings.relative_tolerance,
    )
    golden, outputs = step.golden(sequences)
    graph = _Graph(spec, model, serialised, exported, parity, outputs, {}, states=step.states)
    return golden, graph


def _variant(
    full: _Graph, artifact: Artifact, *, golden: Mapping[str, np.ndarray], variant: str
) -> _Graph:
    """The same at a lower precision. Raises TargetMissed where it loses too much accuracy."""
    if "exported" not in full.accuracies:
        raise Unsupported(
            f"{full.spec.name!r} has no labelled test set, to which {variant} could be held"
        )
    model = variants.make(full.model, variant=variant, calibration=artifact.calibration)
    serialised = model.SerializeToString()
    spec = replace(full.spec, name=f"{full.spec.name}_{variant}")
    run = runner(serialised, name=spec.name)
    found = accuracy(
        run,
        inputs=artifact.evaluation,
        labels=np.asarray(artifact.labels),
        output=_answer(artifact, outputs=[tensor.name for tensor in spec.outputs]),
        batch_size=_EVALUATION_BATCH,
    )
    recipe = artifact.training.get("recipe") or {}
    variants.check_accuracy(
        full.accuracies["exported"],
        found,
        variant=variant,
        least_share=recipe.get("variant_accuracy", variants.LEAST_SHARE),
    )
    accuracies = {"full": full.accuracies["exported"], "exported": found}
    speed = variants.speed(full.run, run, inputs=golden)
    return replace(
        full,
        spec=spec,
        model=model,
        serialised=serialised,
        run=run,
        outputs=run(golden),
        accuracies=accuracies,
        speed=speed,
    )


def _spec(saved: SavedModel, *, name: str, max_batch_size: int) -> ModelSpec:
    """The contract per sample: the signature's shapes without their batch axis."""
    return ModelSpec(
        name=name,
        max_batch_size=max_batch_size,
        inputs=tuple(replace(tensor, shape=tensor.shape[1:]) for tensor in saved.inputs),
        outputs=tuple(replace(tensor, shape=tensor.shape[1:]) for tensor in saved.outputs),
    )


def _affordable(
    golden: Mapping[str, np.ndarray], *, cost: ModelCost | None
) -> dict[str, np.ndarray]:
    """As many golden inputs as the proof can run in good time, but a few of them in any case."""
    flops = max(cost.flops_per_sample if cost else 0, 1)
    samples = max(_PROOF_FLOPS // flops, _FEWEST_SAMPLES)
    return {name: array[:samples] for name, array in golden.items()}


def _batch_sizes(
    spec: ModelSpec, *, golden: Mapping[str, np.ndarray], cost: ModelCost | None
) -> list[int]:
    """The smallest, the largest, one that divides no power of two, one between.

    Of networks so large that golden inputs are few, no batch is larger than these.
    """
    most = spec.max_batch_size
    if cost and cost.flops(batch_size=most) > _PROOF_FLOPS:
        most = min(most, len(next(iter(golden.values()))))
    return sorted({min(size, most) for size in (1, 3, 8, most)})


def _cost(model: onnx.ModelProto) -> ModelCost | None:
    """The cost of the graph; None, with the reason logged, where the graph leaves it open."""
    try:
        return graphs.cost_of(model, batches=True)
    except InvalidInput as error:
        logger.warning("%s is published without its cost: %s", model.graph.name, error)
        return None


def _config(graph: _Graph, *, cost: ModelCost | None) -> Any:
    spec, states = graph.spec, graph.states
    config = sequence_config(spec, states=states) if states else config_of(spec)
    for key, value in (cost.to_parameters() if cost else {}).items():
        config.parameters[key].string_value = value
    return config


def _accuracies(artifact: Artifact, *, saved: SavedModel, exported: Run) -> dict[str, Accuracy]:
    """Right answers over the whole test set, before and after; they must be equally many."""
    if artifact.labels is None:
        return {}
    output = _answer(artifact, outputs=[tensor.name for tensor in saved.outputs])
    found = {
        name: accuracy(
            run,
            inputs=artifact.evaluation,
            labels=artifact.labels,
            output=output,
            batch_size=_EVALUATION_BATCH,
        )
        for name, run in (("trained", saved.run), ("exported", exported))
    }
    if found["trained"] != found["exported"]:
        raise ParityFailed(
            f"before export {found['trained'].correct} of {found['trained'].samples} samples were "
            f"right, after it {found['exported'].correct}"
        )
    return found


def _answer(artifact: Artifact, *, outputs: Sequence[str]) -> str:
    """The output that tells classes: the first that has class names, else the first."""
    return next((name for name in outputs if name in artifact.classes), outputs[0])


def _card(artifact: Artifact, *, graph: _Graph, cost: ModelCost | None) -> ModelCard:
    kept = (
        "model",
        "task",
        "seed",
        "test_accuracy",
        "test_correct",
        "test_samples",
        "preprocessing",
    )
    training = {key: artifact.training[key] for key in kept if key in artifact.training}
    training["accuracy"] = {key: value.to_table() for key, value in graph.accuracies.items()}
    if graph.speed:  # the proof is that of the full graph, of which this is made
        training["speed"] = graph.speed
    packages = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy")
    installed = {package: _version(package) for package in packages}
    versions = {package: version for package, version in installed.items() if version}
    return ModelCard(
        cost=cost,
        parity=graph.parity.to_table(),
        training=training,
        packages={"python": platform.python_version(), **versions},
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
