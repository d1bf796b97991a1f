"""The data sets: one file each, which reads arrays from files that it has checked.

A file defines `load()`, which returns a `DataSet`, and is found by its entry in `_LOADERS`.
"""

from training.datasets import mnist
from training.datasets.samples import DataSet, Samples, split

__all__ = ["DataSet", "Samples", "load", "names", "split"]

_LOADERS = {"mnist": mnist.load}


def names() -> tuple[str, ...]:
    """The names of all data sets, sorted."""
    return tuple(sorted(_LOADERS))


def load(name: str) -> DataSet:
    """The data set of that name, one of `names()`. Raises CorruptData, or NotFound."""
    return _LOADERS[name]()
