"""The data sets: one file each, which reads or draws arrays and checks what it has read.

A file defines what returns a `DataSet`, and is found by its entry in `_LOADERS`.
"""

from pathlib import Path

from ridgeline.errors import InvalidInput
from training.datasets import (
    canvas,
    cifar10,
    digits8,
    fashion_mnist,
    grammar,
    image_folder,
    mnist,
    number_words,
    photos,
    spoken_digits,
)
from training.datasets.image_folder import ImageSettings
from training.datasets.samples import DataSet, Preprocessing, Samples, split

__all__ = ["DataSet", "ImageSettings", "Preprocessing", "Samples", "load", "names", "split"]

_LOADERS = {
    "canvas_boxes": canvas.load_boxes,
    "canvas_masks": canvas.load_masks,
    "canvas_single": canvas.load_single,
    "digits8": digits8.load,
    "grammar": grammar.load,
    "mnist": mnist.load,
    "number_words": number_words.load,
    "photos": photos.load,
    "spoken_digits": spoken_digits.load,
}

_FROM_FILES = {
    "cifar10": cifar10.load,
    "fashion_mnist": fashion_mnist.load,
}
_IMAGES = "images"


def names() -> tuple[str, ...]:
    """The names of all data sets, sorted."""
    return tuple(sorted([*_LOADERS, *_FROM_FILES, _IMAGES]))


def load(name: str, *, folder: Path | None = None, images: ImageSettings | None = None) -> DataSet:
    """The data set of that name, one of `names()`. Raises CorruptData, NotFound, or InvalidInput.

    `folder` holds the files of those that do not come with the project; `images` is for a folder of
    images by class alone.
    """
    if images is not None and name != _IMAGES:
        raise InvalidInput(f"[images] is for the data set {_IMAGES!r}, not for {name!r}")
    if name == _IMAGES:
        return image_folder.load(folder=folder, settings=images)
    if name in _FROM_FILES:
        return _FROM_FILES[name](folder=folder)
    if folder is not None:
        raise InvalidInput(f"the data set {name!r} reads no files of yours; leave out --data")
    return _LOADERS[name]()
