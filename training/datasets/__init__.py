"""The data sets: one file each, which reads or draws arrays and checks what it has read.

A file defines what returns a `DataSet`, and is found by its entry in `_LOADERS`.
"""

from training.datasets import canvas, grammar, mnist, number_words, photos, spoken_digits
from training.datasets.samples import DataSet, Preprocessing, Samples, split

__all__ = ["DataSet", "Preprocessing", "Samples", "load", "names", "split"]

_LOADERS = {
    "canvas_boxes": canvas.load_boxes,
    "canvas_masks": canvas.load_masks,
    "canvas_single": canvas.load_single,
    "grammar": grammar.load,
    "mnist": mnist.load,
    "number_words": number_words.load,
    "photos": photos.load,
    "spoken_digits": spoken_digits.load,
}


def names() -> tuple[str, ...]:
    """The names of all data sets, sorted."""
    return tuple(sorted(_LOADERS))


def load(name: str) -> DataSet:
    """The data set of that name, one of `names()`. Raises CorruptData, or NotFound."""
    return _LOADERS[name]()
