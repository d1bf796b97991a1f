"""The tasks: what is asked of a network, one file each.

    classification   one label for each sample
    localization     what there is in the image, and its box
    segmentation     a class for every pixel
    detection        any number of boxes, each with its class
    language         the next word after each of a sentence's
    translation      one sequence for another
    speech           the words spoken in a recording
    filtering        a filter that is given, not learned

A file says what the loss sees (`learner`, `loss`), what is served (`served`: post-processing in the
graph, so that a client gets boxes, masks, labels, words), and what the test set shows (`measure`).
"""

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from ridgeline.measures import AT_MOST
from training.datasets.samples import DataSet, Samples

if TYPE_CHECKING:
    import keras

_NAMES = (
    "classification",
    "detection",
    "filtering",
    "language",
    "localization",
    "segmentation",
    "speech",
    "translation",
)


class Task(Protocol):
    """What each file of this folder defines."""

    def learner(self, network: "keras.Model", /) -> "keras.Model":
        """The network as the loss sees it: from a batch of `Samples.inputs` to what it compares."""

    def loss(self) -> Any:
        """The loss between `Samples.labels` and what the learner answers."""

    def metrics(self) -> list[Any]:
        """What is shown beside the loss; at most "accuracy"."""

    def served(self, network: "keras.Model", /) -> "keras.Model":
        """The network as it is served, with the same weights."""

    def measure(self, served: "keras.Model", /, *, test: Samples) -> dict[str, float]:
        """The figures on the test set, by the names that recipes bound."""

    def served_inputs(self, samples: Samples, /) -> dict[str, Any]:
        """What a client sends for these samples, by input name."""

    def truth(self, samples: Samples, /) -> dict[str, Any]:
        """What answers to these samples are held to, as `ridgeline.measures` takes it."""

    def check_fits(self, network: "keras.Model", /, *, data: DataSet) -> None:
        """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""


def names() -> tuple[str, ...]:
    """The names of all tasks, sorted."""
    return _NAMES


def find(name: str) -> Task:
    """The task of that name, one of `names()`. Loads Keras."""
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))


def reached(measures: dict[str, float], /, *, bounds: dict[str, float]) -> bool:
    """Whether each bound is kept; a measure that is missing or not a number keeps none."""
    missing = float("nan")
    return all(
        measures.get(name, missing) <= bound
        if name in AT_MOST
        else measures.get(name, missing) >= bound
        for name, bound in bounds.items()
    )
