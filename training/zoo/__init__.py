"""The networks: one file per architecture, found by the file's name.

A file defines `build()`, which returns a Keras model with fresh random weights, and nothing else:
no data, no training, no augmentation. Its `Input` and its output layer carry the
names that the model is served under. Listing the names loads no framework; building does.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from ridgeline.errors import NotFound

if TYPE_CHECKING:
    import keras


def names() -> tuple[str, ...]:
    """The names of all networks, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def build(name: str) -> "keras.Model":
    """A fresh network of that name. Raises NotFound listing the names there are."""
    if name not in names():
        raise NotFound(f"there is no network {name!r}; there are {', '.join(names())}")
    model: keras.Model = importlib.import_module(f"{__name__}.{name}").build()
    return model
