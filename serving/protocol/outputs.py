"""How a client wants the outputs of its request: binary or not, classified, in shared memory."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ridgeline.errors import InvalidInput, Malformed
from serving.protocol.classification import classified
from serving.protocol.placement import Place, place_of
from serving.shared_memory import Regions
from serving.version import ReadyVersion

_CLASSIFICATION, _BINARY = "classification", "binary_data"
OUTPUT_PARAMETERS = frozenset((_CLASSIFICATION, _BINARY))
_MOST_CLASSES = 2**31


@dataclass(frozen=True, slots=True)
class OutputWish:
    """The wish for one output: `binary` None follows the request, `classes` 0 asks for none."""

    binary: bool | None = None
    classes: int = 0
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """The wishes for the outputs of a request, by name.

    `labels` and `batches` are what classification has to know of the model.
    """

    by_output: Mapping[str, OutputWish] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batches: bool = False

    def __getitem__(self, name: str) -> OutputWish:
        return self.by_output.get(name, _NOTHING)

    @property
    def classify(self) -> bool:
        """Whether an output is to be classified."""
        return any(wish.classes for wish in self.by_output.values())

    def knowing(self, model: ReadyVersion) -> "Wishes":
        """The same, with what has to be known of the model."""
        loaded = model.loaded
        return Wishes(self.by_output, loaded.labels, loaded.spec.batches)

    def shaped(self, array: np.ndarray, *, name: str) -> np.ndarray:
        """The output as wished: its classes, or itself. Raises InvalidInput."""
        classes = self[name].classes
        if not classes:
            return array
        labels = self.labels.get(name, ())
        return classified(array, count=classes, labels=labels, batches=self.batches, name=name)


def wish_of(
    parameters: Mapping[str, Any], *, regions: Regions, of: str, least_classes: int = 0
) -> OutputWish:
    """The wish that an output's parameters express. Unknown ones are the model's, or nobody's.

    Raises InvalidInput for values of the wrong kind and wishes that contradict each other; NotFound
    for an unknown region.
    """
    if not parameters:
        return _NOTHING
    binary = parameters.get(_BINARY)
    if _BINARY in parameters and type(binary) is not bool:
        raise Malformed(f"{_BINARY!r} of {of} must be a boolean, received {_told(binary)}")
    classes = parameters.get(_CLASSIFICATION, least_classes)
    if type(classes) is not int or not least_classes <= classes < _MOST_CLASSES:
        raise Malformed(
            f"invalid value for {_CLASSIFICATION!r} parameter of {of}, expected a whole number "
            f">= {least_classes}, received {_told(classes)}"
        )
    if _CLASSIFICATION not in parameters:
        classes = 0
    place = place_of(parameters, regions=regions, of=of)
    for name, wished in ((_CLASSIFICATION, classes), (_BINARY, binary)):
        if place and wished:
            raise InvalidInput(f"{of} can't set both 'shared_memory_region' and {name!r}")
    return OutputWish(binary=binary, classes=classes, place=place)


def _told(value: object) -> str:
    return reprlib.repr(value)


_NOTHING = OutputWish()
