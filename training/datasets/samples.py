"""Labelled samples, and the split that keeps validation apart from training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridgeline.errors import InvalidInput


@dataclass(frozen=True)
class Samples:
    """Inputs [samples, ...] as a network takes them, labels [samples, ...] as its task has them.

    Of classification, labels are class numbers int64 [samples]; the data set says what others are.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise InvalidInput(
                "samples need one label each, received "
                f"inputs {self.inputs.shape} and labels {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.intp]) -> "Samples":
        """The samples at these indices, in that order."""
        return Samples(self.inputs[indices], self.labels[indices])


@dataclass(frozen=True)
class Preprocessing:
    """How a photo became an input; whoever serves the network must do the same.

    The middle square of `crop_share` of the shorter side, resized with `filter`; then levels from 0
    to 255 less `mean`, over `std`. The words are those of `ridgeline pipeline`.
    """

    mean: float
    std: float
    crop_share: float = 1.0
    filter: str = "bicubic"
    resize: str = "crop"


@dataclass(frozen=True)
class DataSet:
    """Training samples, test samples that no choice may depend on, and the names of the classes.

    `preprocessing` is how inputs came from files of images, where they did. Where samples are
    drawn, `redraw` draws as many others as it is told, the same ones for the same seed.
    """

    training: Samples
    test: Samples
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None = None
    redraw: Callable[[int, int], Samples] | None = None  # count, seed


def split(
    samples: Samples,
    *,
    validation_samples: int,
    seed: int,
    training_samples: int | None = None,
    training_per_class: int | None = None,
) -> tuple[Samples, Samples]:
    """Draw training and validation samples, disjoint; the same seed draws the same ones.

    `training_samples` caps the training part, `training_per_class` keeps that many of each class,
    None takes all that validation leaves. Raises InvalidInput where there are too few samples.
    """
    available = len(samples) - validation_samples
    wanted = available if training_samples is None else training_samples
    if validation_samples < 1 or not 1 <= wanted <= available:
        raise InvalidInput(
            f"{len(samples)} samples cannot be split into {validation_samples} for validation and "
            f"{'the rest' if training_samples is None else training_samples} for training; "
            "both need at least one"
        )
    order = np.random.default_rng(seed).permutation(len(samples))
    validation, training = np.split(order, [validation_samples])
    if training_per_class is not None:
        training = _of_each_class(training, samples.labels, count=training_per_class)
    return samples.take(training[:wanted]), samples.take(validation)


def _of_each_class(
    chosen: NDArray[np.intp], labels: NDArray[Any], *, count: int
) -> NDArray[np.intp]:
    """The first `count` of each class among the chosen samples, in their order."""
    if labels.ndim != 1:
        raise InvalidInput(f"samples with labels of {labels.shape[1:]} have no class each")
    kept = []
    for label in np.unique(labels):
        found = chosen[labels[chosen] == label]
        if len(found) < count:
            raise InvalidInput(f"class {label} has {len(found)} samples to train with, not {count}")
        kept.append(found[:count])
    return np.concatenate(kept)
