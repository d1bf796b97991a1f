"""The loop: one training run from a recipe, top to bottom."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from training import datasets, pretrained, tasks, transfer, workers, zoo
from training.checkpoint import Checkpoint, State
from training.datasets import DataSet, Preprocessing, Samples
from training.epoch import Epoch, Watcher
from training.recipe import Recipe
from training.run import Run


@dataclass(frozen=True)
class Outcome:
    """A trained network as it is served, how it got there, and what the test set shows of it."""

    network: keras.Model
    curve: tuple[Epoch, ...]
    train_seconds: float
    train_flops_per_s: float
    test: Samples
    measures: Mapping[str, float]
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None = None
    validation: Samples | None = None

    @property
    def test_correct(self) -> int:
        """How many test samples are classed rightly; 0 where the task has no accuracy."""
        return round(self.measures.get("accuracy", 0.0) * len(self.test))

    @property
    def test_accuracy(self) -> float:
        """The share of test samples classed rightly."""
        return self.test_correct / len(self.test)


def fit(
    recipe: Recipe,
    *,
    watch: Watcher = lambda _progress: None,
    kept: Checkpoint | None = None,
    logs: Path | None = None,
) -> Outcome:
    """Train the recipe's network. The same recipe gives the same weights on the same machine.

    `watch` is told of each step. With `kept`, the run goes on where a killed one of the same recipe
    ended its last epoch, with the same result as without the kill; `logs` receives the curve for
    TensorBoard. A run that diverges ends early. Where TF_CONFIG names several workers, each calls
    this with the same recipe, and the outcome is the same for all (`training.workers`). Raises
    CorruptData, and InvalidInput where network and data do not fit.
    """
    team = workers.join()
    keras.utils.set_random_seed(recipe.seed)
    tf.config.experimental.enable_op_determinism()
    data = recipe.load()
    classes = len(data.classes) if recipe.task == "classification" else None
    state, flops = State(variables=[], best=[], curve=[], seconds=0.0), 0
    validation: Samples | None = None
    with precision(recipe.precision):
        network = pretrained.build(recipe, classes=classes)
        tasks.find(recipe.task).check_fits(network, data=data)
        if recipe.epochs:
            run, validation = _prepare(network, recipe=recipe, data=data, team=team)
            state = run.go(validation, watch=watch, kept=kept, logs=logs)
            flops = run.epoch_flops * len(state.curve)
    if recipe.precision != "float32":
        network = _in_float32(recipe, trained=network, classes=classes)

    # The one look at the test set: no choice above depends on it.
    task = tasks.find(recipe.task)
    served = task.served(network)
    served.name = recipe.artifact
    return Outcome(
        network=served,
        curve=tuple(Epoch(**point) for point in state.curve),
        train_seconds=state.seconds,
        train_flops_per_s=flops / max(state.seconds, 1e-9),
        test=data.test,
        measures=task.measure(served, test=data.test),
        classes=data.classes,
        preprocessing=data.preprocessing,
        validation=validation,
    )


def _prepare(
    network: keras.Model, *, recipe: Recipe, data: DataSet, team: workers.Workers
) -> tuple[Run, Samples]:
    """The run of a network on its share of the training samples, and those that validate it."""
    training, validation = datasets.split(
        data.training,
        validation_samples=recipe.validation_of(len(data.training)),
        training_samples=recipe.training_samples,
        training_per_class=recipe.training_per_class,
        seed=recipe.seed,
    )
    if recipe.transfer:
        transfer.begin(network, transfer=recipe.transfer)
    task = tasks.find(recipe.task)
    run = Run(recipe, task=task, network=network, training=training, data=data, team=team)
    return run, validation


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Compute in this precision meanwhile; weights stay float32 (Micikevicius and others, 2018)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _in_float32(recipe: Recipe, *, trained: keras.Model, classes: int | None) -> keras.Model:
    """The network anew, computing in float32, with the trained weights."""
    network = zoo.build(recipe.model, classes=classes)
    network.set_weights(trained.get_weights())
    return network
