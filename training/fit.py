"""The loop: one training run from a recipe, top to bottom."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ridgeline.errors import InvalidInput
from training import datasets, zoo
from training.datasets import DataSet, Samples
from training.recipe import Augmentation, Optimizer, Recipe

_EVALUATION_BATCH_SIZE = 1000


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve.

    `loss` and `accuracy` are means over the epoch's batches, as the network saw them (augmented,
    and while it still learned); `val_loss` and `val_accuracy` those of the network after it.
    `learning_rate` is that which the schedule has come to at its end.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """A trained network, how it got there, and how many of the test samples it classes rightly."""

    network: keras.Model
    curve: tuple[Epoch, ...]
    train_seconds: float
    test: Samples
    test_correct: int
    classes: tuple[str, ...]

    @property
    def test_accuracy(self) -> float:
        """The share of test samples classed rightly."""
        return self.test_correct / len(self.test)


def fit(recipe: Recipe, *, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Outcome:
    """Train the recipe's network. The same recipe gives the same weights on the same machine.

    `callbacks` watch, to show progress. A run that diverges ends early, with an accuracy of
    next to nothing. Raises CorruptData, and InvalidInput where network and data do not fit.
    """
    keras.utils.set_random_seed(recipe.seed)
    tf.config.experimental.enable_op_determinism()

    data = datasets.load(recipe.dataset)
    training, validation = datasets.split(
        data.training,
        validation_samples=recipe.validation_samples,
        training_samples=recipe.training_samples,
        seed=recipe.seed,
    )
    network = zoo.build(recipe.model)
    check_fits(network, data=data)

    # Augmentation is wrapped around the network, so that what is exported is the network alone.
    learner = keras.Sequential([*augmentation_layers(recipe.augmentation), network])
    steps = recipe.epochs * -(-len(training) // recipe.batch_size)
    learner.compile(
        optimizer=make_optimizer(recipe.optimizer, steps=steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    curve = CurveRecorder()
    start_ns = time.monotonic_ns()
    learner.fit(
        training.inputs,
        training.labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(validation.inputs, validation.labels),
        validation_batch_size=_EVALUATION_BATCH_SIZE,
        callbacks=[curve, keras.callbacks.TerminateOnNaN(), *callbacks],
        verbose=0,
    )
    train_seconds = (time.monotonic_ns() - start_ns) / 1e9

    # The one look at the test set: no choice above depends on it.
    return Outcome(
        network=network,
        curve=tuple(curve.epochs),
        train_seconds=train_seconds,
        test=data.test,
        test_correct=count_correct(network, samples=data.test),
        classes=data.classes,
    )


def check_fits(network: keras.Model, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    sample, classes = data.training.inputs.shape[1:], len(data.classes)
    if network.input_shape[1:] != sample or network.output_shape[1:] != (classes,):
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]} and answers "
            f"{network.output_shape[1:]}, but the data set has samples of {sample} "
            f"in {classes} classes"
        )


def make_optimizer(settings: Optimizer, *, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer, with its learning rate on half a cosine over `steps` steps."""
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate,
        decay_steps=steps,
        alpha=settings.final_learning_rate / settings.learning_rate,
    )
    if settings.name == "adam":
        return keras.optimizers.Adam(schedule)
    return keras.optimizers.SGD(schedule, momentum=settings.momentum)


def augmentation_layers(bounds: Augmentation | None) -> list[keras.Layer]:
    """Layers that change an image at random while training, and let it pass otherwise."""
    if bounds is None:
        return []
    blank: dict[str, Any] = {"fill_mode": "constant", "fill_value": 0.0}  # MNIST's background
    turn = bounds.rotation_degrees / 360
    layers: list[tuple[float, Callable[[], keras.Layer]]] = [
        (bounds.shift, lambda: keras.layers.RandomTranslation(bounds.shift, bounds.shift, **blank)),
        (turn, lambda: keras.layers.RandomRotation(turn, **blank)),
        (bounds.zoom, lambda: keras.layers.RandomZoom(bounds.zoom, **blank)),
    ]
    return [make() for bound, make in layers if bound > 0]


def count_correct(network: keras.Model, *, samples: Samples) -> int:
    """How many samples the network classes rightly; an answer that is not finite is wrong."""
    answers = network.predict(samples.inputs, batch_size=_EVALUATION_BATCH_SIZE, verbose=0)
    right = np.isfinite(answers).all(axis=1) & (answers.argmax(axis=1) == samples.labels)
    return int(right.sum())


class CurveRecorder(keras.callbacks.Callback):  # type: ignore[misc]  # keras publishes no types
    """Keeps one `Epoch` for each that ends."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self._start_ns = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._start_ns = time.monotonic_ns()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the epoch's figures; keras counts epochs from 0."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        self.epochs.append(
            Epoch(
                epoch=epoch + 1,
                learning_rate=float(self.model.optimizer.learning_rate),
                seconds=(time.monotonic_ns() - self._start_ns) / 1e9,
                **figures,
            )
        )
