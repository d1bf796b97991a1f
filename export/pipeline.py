"""Export, step by step: convert, count, prove, publish. Loads TensorFlow."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from export import gain, variants
from export.artifact import Artifact, read_artifact
from export.card import accuracies, card, configuration
from export.convert import convert
from export.golden import golden_file, golden_inputs
from export.judging import Judgement, Verdict, judge, judge_export
from export.parity import Parity, Run, prove, runner
from export.saved_model import SavedModel
from export.settings import ExportSettings
from export.stateful import Step, sequences_of
from ridgeline import graph as graphs
from ridgeline.cost import ModelCost
from ridgeline.errors import InvalidInput, Unsupported
from ridgeline.model import ModelSpec, TensorSpec
from ridgeline.repository import MODEL_FILE, publish

logger = logging.getLogger(__name__)

_PROOF_FLOPS = 10**11  # of all golden inputs at one batch size: a second or so on two cores
_FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class Graph:
    """What may be published: a graph, what runs it, and what was found out about it.

    `outputs` are those for the golden inputs, `variant` tells of what this one is a variant,
    `states` are those of a sequence, which the server keeps.
    """

    spec: ModelSpec
    model: onnx.ModelProto
    serialised: bytes
    run: Run
    parity: Parity
    golden: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    judgements: Mapping[str, Judgement]
    variant: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[TensorSpec, ...] = ()


def export(settings: ExportSettings) -> dict[str, Any]:
    """Export one model; returns what was published, as JSON.

    Raises a RidgelineError, with nothing published, where a step fails.
    """
    begin = time.monotonic()
    artifact = read_artifact(settings.source)
    prove_it = proven_step if settings.stateful else proven
    graph = prove_it(artifact, settings=settings)
    if settings.variant:
        full = graph
        graph, verdict = variant_of(full, artifact, variant=settings.variant)
        verdict.check(variant=settings.variant)
        graph = with_gain(graph, full=full)
    cost = _cost(graph.model)
    golden = golden_file(graph.golden, outputs=graph.outputs)
    directory = publish(
        {MODEL_FILE: graph.serialised, "golden.npz": golden},
        config=configuration(graph.spec, states=graph.states, cost=cost),
        card=card(
            artifact,
            cost=cost,
            parity=graph.parity.to_table(),
            judgements=graph.judgements,
            variant=graph.variant,
        ),
        labels=artifact.classes,
        root=settings.repository,
    )
    told = _told(graph, cost=cost)
    seconds = round(time.monotonic() - begin, 2)
    version = {"version": int(directory.name), "directory": str(directory)}
    return {**told, **version, "seconds": seconds}


def _told(graph: Graph, *, cost: ModelCost | None) -> dict[str, Any]:
    """What is said of a graph that was published."""
    return {
        "name": graph.spec.name,
        "cost": {**asdict(cost), "flops_per_sample": cost.flops_per_sample} if cost else None,
        "parity": graph.parity.to_table(),
        "accuracy": accuracies(graph.judgements),
        "measures": {which: dict(found.measures) for which, found in graph.judgements.items()},
        "variant": graph.variant,
        "max_batch_size": graph.spec.max_batch_size,
        "opset": graph.model.opset_import[0].version,
        "file_bytes": len(graph.serialised),
    }


def proven(artifact: Artifact, *, settings: ExportSettings) -> Graph:
    """The graph that answers as TensorFlow does. Raises a RidgelineError where there is none."""
    saved = SavedModel(artifact.saved_model)
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
    outputs = [tensor.name for tensor in saved.outputs]
    return Graph(
        spec=spec,
        model=model,
        serialised=serialised,
        run=exported,
        parity=parity,
        golden=golden,
        outputs=saved.run(golden),
        judgements=judge_export(saved.run, exported, artifact=artifact, outputs=outputs),
    )


def proven_step(artifact: Artifact, *, settings: ExportSettings) -> Graph:
    """The same for one step at a time: over whole sequences it answers as the whole network."""
    saved = SavedModel(artifact.saved_model)
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
    return Graph(
        spec=spec,
        model=model,
        serialised=serialised,
        run=exported,
        parity=parity,
        golden=golden,
        outputs=outputs,
        judgements={},
        states=step.states,
    )


def variant_of(full: Graph, artifact: Artifact, *, variant: str) -> tuple[Graph, Verdict]:
    """The same at a lower precision, and what is left of what the test set shows.

    Raises Unsupported where there is no test set to hold it to, or where it cannot be made.
    """
    name = full.spec.name
    if "exported" not in full.judgements:
        raise Unsupported(
            f"{name!r} has no labelled test set, to which {variant} could be held: untrained "
            "networks have none, nor has the task 'filtering'; older artifacts must be trained anew"
        )
    model = variants.make(full.model, variant=variant, calibration=artifact.calibration)
    serialised = model.SerializeToString()
    spec = replace(full.spec, name=f"{name}_{variant}")
    run = runner(serialised, name=spec.name)
    before = full.judgements["exported"]
    outputs = [tensor.name for tensor in spec.outputs]
    found = judge(run, artifact=artifact, outputs=outputs) or before
    recipe = artifact.training.get("recipe") or {}
    least_share = recipe.get("variant_accuracy", variants.LEAST_SHARE)
    graph = replace(
        full,
        spec=spec,
        model=model,
        serialised=serialised,
        run=run,
        outputs=run(full.golden),
        judgements={"full": before, "exported": found},
        variant={"of": name, "precision": variant, "least_share": least_share},
    )
    return graph, Verdict(before, found, least_share=least_share)


def with_gain(variant: Graph, *, full: Graph) -> Graph:
    """The variant, with how fast it is beside the full graph, each on one thread."""
    runs = (runner(graph.serialised, name=graph.spec.name, threads=1) for graph in (full, variant))
    speed = gain.measure(*runs, inputs=full.golden)
    return replace(variant, variant={**variant.variant, "speed": speed})


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
