"""What training hands over: a SavedModel, and beside it what is known of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.errors import CorruptData, NotFound, TargetMissed

_SAVED_MODEL = "saved_model"
_LABEL = "label"


@dataclass(frozen=True)
class Artifact:
    """A SavedModel to export; `evaluation` maps input names to the test set, `labels` apart.

    `truth` is what answers of other tasks than classification are held to, see
    `ridgeline.measures`; `classes` are the class names by output; `calibration` holds samples that
    were neither trained on nor tested with. A bare SavedModel has none of all this.
    """

    name: str
    saved_model: Path
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray | None = None
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    calibration: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """What was asked of the network; "" where that is not known."""
        return str(self.training.get("task", ""))


def read_artifact(path: Path) -> Artifact:
    """An artifact folder of the training stage, or a bare SavedModel folder.

    Raises NotFound where it is neither, TargetMissed where training ended below its target,
    CorruptData where a file of it cannot be read.
    """
    if (path / "saved_model.pb").is_file():
        return Artifact(name=path.resolve().name, saved_model=path)
    training = _training(path)
    if not training.get("reached", False):
        raise TargetMissed(
            f"{path} cannot be exported: its accuracy is {training.get('test_accuracy')}, "
            f"its recipe requires {training.get('required_accuracy')}"
        )
    if not (path / _SAVED_MODEL / "saved_model.pb").is_file():
        raise NotFound(f"{path} holds no {_SAVED_MODEL}; train it again")
    untrained = bool(training.get("untrained"))  # then there is nothing to measure
    evaluation = {} if untrained else _arrays(path / "evaluation.npz")
    labels = evaluation.pop(_LABEL, None)
    return Artifact(
        name=str(training.get("model", path.resolve().name)),
        saved_model=path / _SAVED_MODEL,
        training=training,
        evaluation=evaluation,
        labels=labels,
        truth={} if untrained else _arrays_if_there(path / "truth.npz"),
        classes=_classes(training.get("labels", {}), source=path / "training.json"),
        calibration=_arrays_if_there(path / "calibration.npz"),
    )


def _training(path: Path) -> dict[str, Any]:
    file = path / "training.json"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"{path} is neither an artifact (no training.json) nor a SavedModel (no saved_model.pb)"
        ) from None
    except ValueError as error:
        raise CorruptData(f"{file} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise CorruptData(f"{file} must hold an object, received a {type(table).__name__}")
    return table


def _classes(table: Any, *, source: Path) -> dict[str, Sequence[str]]:
    """The class names by output, one line each in the repository's label files."""
    if not isinstance(table, dict) or not all(map(_are_lines, table.values())):
        raise CorruptData(
            f"{source}: 'labels' must map each output to a list of names, received {table!r}"
        )
    return table


def _are_lines(names: Any) -> bool:
    return isinstance(names, list) and all(
        isinstance(name, str) and len(name.splitlines()) == 1 for name in names
    )


def _arrays_if_there(path: Path) -> dict[str, np.ndarray]:
    """What older artifacts do not have, and some tasks neither."""
    return _arrays(path) if path.exists() else {}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise NotFound(f"{path} is missing; train the model again") from None
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise CorruptData(f"{path} cannot be read: {error}") from error
