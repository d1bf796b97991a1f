"""What training hands over, artifacts/<model>/: files that the export stage reads.

    saved_model/     the network, signature `serving_default`, inputs and outputs by their names;
                     signature `step` where it can also take one element of a sequence at a time
    weights.npz      the weights by layer, for recipes that begin with them (`training.transfer`)
    evaluation.npz   the test set: an array per input name; of classification also `label` (int64)
    truth.npz        of other tasks, what the answers to it are held to (`ridgeline.measures`)
    calibration.npz  validation samples, an array per input name, for lower precisions
    training.json    how it came to be: settings, seed, curve, measures, time, versions
    curve.png        the learning curve

Where a required figure is missed, only the last two are written: there is nothing to export then.
"""

import contextlib
import fcntl
import importlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ridgeline.errors import InvalidInput
from training import tasks, transfer, zoo
from training.datasets import Samples
from training.fit import Outcome
from training.picture import draw_curve
from training.recipe import Recipe

_CALIBRATION = 256  # samples from which ranges of activations are taken
_PACKAGES = ("tensorflow", "keras", "numpy")


def write(outcome: Outcome, *, recipe: Recipe, output: Path) -> dict[str, Any]:
    """Write the artifact under `output`, in place of an older one; returns training.json's content.

    It is staged beside its place and renamed into it: a run that is killed half-way leaves the old
    artifact or none, never a mixture.
    """
    report = describe(outcome, recipe=recipe)
    with staging(output, model=recipe.artifact) as stage:
        new = stage / "new"
        new.mkdir()
        write_json(new / "training.json", report)
        draw_curve(
            new / "curve.png",
            curve=outcome.curve,
            title=_title(report),
            augmented=recipe.augmentation is not None,
            required_accuracy=recipe.required_accuracy,
            test_accuracy=report["test_accuracy"],
        )
        if report["reached"]:
            step = zoo.build_step(recipe.model, network=outcome.network)
            save_network(outcome.network, step=step, folder=new / "saved_model")
            weights: dict[str, Any] = transfer.by_layer(outcome.network)
            np.savez(new / transfer.WEIGHTS_FILE, **weights)
            _save_evaluation(outcome.test, recipe=recipe, folder=new)
            if outcome.validation:
                _save_calibration(outcome.validation, recipe=recipe, path=new / "calibration.npz")
        put(new, place=output / recipe.artifact, old=stage / "old")
    return report


def put(new: Path, *, place: Path, old: Path) -> None:
    """Move a staged folder to its place, and what was there to `old`."""
    if place.exists():
        place.rename(old)
    new.rename(place)


def describe(outcome: Outcome, *, recipe: Recipe) -> dict[str, Any]:
    """The content of training.json; figures that are not finite become null.

    `test_accuracy` and `required_accuracy` are null for tasks that have no accuracy; `measures` has
    every figure on the test set, `required` its bounds.
    """
    accurate = "accuracy" in outcome.measures
    return {
        "model": recipe.artifact,
        "network": recipe.model,
        "task": recipe.task,
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "curve": [_finite(asdict(point)) for point in outcome.curve],
        "test_accuracy": outcome.test_accuracy if accurate else None,
        "test_correct": outcome.test_correct if accurate else None,
        "test_samples": len(outcome.test),
        "required_accuracy": recipe.required_accuracy,
        "measures": _finite(outcome.measures),
        "required": recipe.bounds,
        "reached": tasks.reached(dict(outcome.measures), bounds=recipe.bounds),
        "train_seconds": round(outcome.train_seconds, 3),
        "train_flops_per_s": round(outcome.train_flops_per_s),
        "parameters": outcome.network.count_params(),
        "labels": _labels(outcome),
        "preprocessing": asdict(outcome.preprocessing) if outcome.preprocessing else None,
        "packages": versions(),
    }


def save_network(network: keras.Model, *, folder: Path, step: keras.Model | None = None) -> None:
    """Save the network for inference, with a free batch axis, under its own tensor names.

    `step` is a second signature, over the same weights.
    """
    archive = keras.export.ExportArchive()
    archive.track(network)
    _add_signature(archive, network, name="serving_default")
    if step is not None:
        _add_signature(archive, step, name="step")
    archive.write_out(str(folder), verbose=False)


def _add_signature(archive: Any, network: keras.Model, *, name: str) -> None:
    inputs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in network.inputs
    ]

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = network(list(tensors) if len(tensors) > 1 else tensors[0], training=False)
        if isinstance(answer, dict):
            return answer
        answers = answer if isinstance(answer, list) else [answer]
        return dict(zip(network.output_names, answers, strict=True))

    archive.add_endpoint(name=name, fn=serve, input_signature=inputs)


def check_writable(output: Path) -> None:
    """Make the folder `output`. Raises InvalidInput where that or writing into it is impossible.

    Asked before the training, not after it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{output} cannot hold artifacts: {error.strerror}") from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise InvalidInput(f"{output} cannot hold artifacts: no permission to write into it")


def _title(report: Mapping[str, Any]) -> str:
    """What the network is, and what the test set showed."""
    measures = ", ".join(
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in report["measures"].items()
        if value is not None
    )
    return (
        f"{report['model']}: {report['parameters']:,} parameters, seed {report['seed']}; {measures}"
    )


def _labels(outcome: Outcome) -> dict[str, list[str]]:
    """The class names of each output that has a number for each class."""
    answer = outcome.network.output
    named = (
        answer
        if isinstance(answer, dict)
        else dict(zip(outcome.network.output_names, outcome.network.outputs, strict=True))
    )
    classes = list(outcome.classes)
    return {name: classes for name, tensor in named.items() if tensor.shape[1:] == (len(classes),)}


def _save_calibration(samples: Samples, *, recipe: Recipe, path: Path) -> None:
    """Some samples that steered no step, and are not those that will judge what is made of them."""
    inputs = tasks.find(recipe.task).served_inputs(samples)
    np.savez_compressed(path, **{name: array[:_CALIBRATION] for name, array in inputs.items()})


def _save_evaluation(samples: Samples, *, recipe: Recipe, folder: Path) -> None:
    """The test set as a client sends it, with labels where each sample has one number.

    Other truths have a file of their own: what reads labels counts them.
    """
    task = tasks.find(recipe.task)
    arrays, truth = task.served_inputs(samples), task.truth(samples)
    if recipe.task == "classification":
        arrays, truth = {**arrays, **truth}, {}
    np.savez_compressed(folder / "evaluation.npz", **arrays)
    if truth:
        np.savez_compressed(folder / "truth.npz", **truth)


@contextlib.contextmanager
def staging(output: Path, *, model: str) -> Iterator[Path]:
    """An empty folder in `output`, for one writer at a time, gone afterwards.

    A writer that was killed outright leaves it behind; the next one clears it away.
    """
    check_writable(output)
    stage = output / f".{model}.staging"
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write what is known of an artifact."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in figures.items()
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run gives."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = importlib.import_module(name).__version__
    return found
