"""Checkpoints: the state of a run after each epoch, so that a killed run goes on from there.

One file for each run, replaced at the end of every epoch by one rename: a kill at any moment leaves
the last one whole. It is named after everything that decides the result, so that a run with another
recipe, or other versions of the packages, never goes on from it.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ridgeline.errors import CorruptData
from training.recipe import Recipe

_CURVE = "curve"
_SECONDS = "seconds"


@dataclass(frozen=True)
class State:
    """What a run needs to go on: variables in their order, the curve so far, seconds trained.

    `best` are those of the best epoch, where the run may end early, else none.
    """

    variables: list[NDArray[Any]]
    best: list[NDArray[Any]]
    curve: list[dict[str, Any]]
    seconds: float


class Checkpoint:
    """The checkpoint of one recipe in a folder."""

    def __init__(self, folder: Path, *, recipe: Recipe, workers: int = 1) -> None:
        told = {key: value for key, value in asdict(recipe).items() if key not in _NO_MATTER}
        told["packages"] = [tf.__version__, keras.__version__, np.__version__]
        if workers > 1:  # normalisation sees parts of batches then
            told["workers"] = workers
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f".{recipe.artifact}-{digest}.checkpoint"

    def write(self, state: State) -> None:
        """Replace what was kept before."""
        arrays: dict[str, Any] = {f"v{i}": array for i, array in enumerate(state.variables)}
        arrays |= {f"b{i}": array for i, array in enumerate(state.best)}
        arrays[_CURVE] = np.array(json.dumps(state.curve))
        arrays[_SECONDS] = np.array(state.seconds)
        new = self.path.with_suffix(".new")
        with new.open("wb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(self.path)

    def read(self) -> State | None:
        """What was kept, None where nothing was. Raises CorruptData, naming the file to remove."""
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                counts = [sum(name.startswith(kind) for name in kept.files) for kind in "vb"]
                return State(
                    variables=[kept[f"v{i}"] for i in range(counts[0])],
                    best=[kept[f"b{i}"] for i in range(counts[1])],
                    curve=json.loads(str(kept[_CURVE])),
                    seconds=float(kept[_SECONDS]),
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CorruptData(
                f"{self.path} is no checkpoint, remove it to train anew: {error}"
            ) from error

    def remove(self) -> None:
        """Forget it: the run is over."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".new").unlink(missing_ok=True)


# Two recipes that differ in these alone end with the same weights.
_NO_MATTER = frozenset({"description", "minutes", "required_accuracy", "required", "name"})


def snapshot(variables: Sequence[Any], /) -> list[NDArray[Any]]:
    """The values of Keras variables, as arrays of their own types."""
    return [variable.value.numpy() for variable in variables]


def restore(variables: Sequence[Any], /, *, values: Sequence[NDArray[Any]]) -> None:
    """Give variables their values back. Raises CorruptData where they do not fit."""
    expected = [tuple(variable.shape) for variable in variables]
    found = [array.shape for array in values]
    if expected != found:
        raise CorruptData(
            f"a checkpoint of {len(found)} arrays does not fit a network of {len(expected)} "
            "variables, or their shapes differ; remove it to train anew"
        )
    for variable, array in zip(variables, values, strict=True):
        variable.assign(array)
