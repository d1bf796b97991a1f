"""Transfer learning: a network begins with what another one learned, and is unfrozen in stages.

The weights come from `weights.npz` of an artifact; the layers of the head are made anew. In each
stage only some layers learn (or all), at a rate of its own: a new head is trained first, so that
its random weights do not spoil what lies below, then all at a lower rate (Yosinski, Clune, Bengio,
Lipson: How transferable are features in deep neural networks?, 2014).
"""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ridgeline.errors import CorruptData, InvalidInput, NotFound
from training.recipe import Optimizer, Recipe, Stage, Transfer

WEIGHTS_FILE = "weights.npz"


def by_layer(network: keras.Model, /) -> dict[str, NDArray[Any]]:
    """All weights: `<layer>:<number>` -> array."""
    return {
        f"{layer.name}:{number}": weight
        for layer in network.layers
        for number, weight in enumerate(layer.get_weights())
    }


def begin(network: keras.Model, /, *, transfer: Transfer) -> None:
    """Give all layers but the head's the weights that the source learned.

    Raises NotFound where there is no artifact, InvalidInput where a layer is not there or has
    another shape.
    """
    _check_names(network, names=transfer.head, key="transfer.head")
    kept = _read(Path(transfer.source) / WEIGHTS_FILE)
    for layer in network.layers:
        if layer.name in transfer.head or not layer.weights:
            continue
        expected = [tuple(weight.shape) for weight in layer.weights]
        found = [kept.get(f"{layer.name}:{number}") for number in range(len(expected))]
        arrays = [array for array in found if array is not None]
        if [array.shape for array in arrays] != expected:
            raise InvalidInput(
                f"layer {layer.name!r} has weights of {expected}, those of {transfer.source} have "
                f"{[array.shape for array in arrays]}; name it in transfer.head to make it anew"
            )
        layer.set_weights(arrays)


def stages(recipe: Recipe, /) -> tuple[Stage, ...]:
    """The stages of a run, in their order; one, of all layers, without `[transfer]`."""
    if recipe.transfer is None:
        return (Stage(learning_rate=recipe.optimizer.learning_rate),)
    return recipe.transfer.stages


def place_of(epoch: int, *, stages: tuple[Stage, ...]) -> int:
    """Which stage the epoch, counted from 0, belongs to."""
    return sum(stage.after_epochs <= epoch for stage in stages) - 1


def length(place: int, *, recipe: Recipe) -> int:
    """How many epochs a stage has; 0 where the run ends before it."""
    told = stages(recipe)
    end = told[place + 1].after_epochs if place + 1 < len(told) else recipe.epochs
    return max(0, min(end, recipe.epochs) - told[place].after_epochs)


def freeze(network: keras.Model, /, *, stage: Stage) -> None:
    """Let the stage's layers learn and no others; normalisation that is frozen keeps its averages.

    The learner must be compiled again afterwards. Raises InvalidInput for an unknown layer.
    """
    _check_names(network, names=stage.train, key="transfer.stages.train")
    for layer in network.layers:
        layer.trainable = not stage.train or layer.name in stage.train


def optimizer_of(stage: Stage, /, *, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer at the stage's rate."""
    final = min(recipe.optimizer.final_learning_rate, stage.learning_rate)
    return replace(recipe.optimizer, learning_rate=stage.learning_rate, final_learning_rate=final)


def _check_names(network: keras.Model, *, names: tuple[str, ...], key: str) -> None:
    known = [layer.name for layer in network.layers if layer.weights]
    if missing := [name for name in names if name not in known]:
        raise InvalidInput(
            f"{key} must name layers of {network.name!r} that have weights, "
            f"{', '.join(known)}, received {missing[0]!r}"
        )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise NotFound(
            f"there is no {path} to begin with; train {path.parent.name} first"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptData(f"{path} holds no weights: {error}") from error
