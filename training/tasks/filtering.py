"""Filtering: a filter that is given, not learned; what is measured is that it is the right one."""

from typing import Any

import keras
import numpy as np

from ridgeline.errors import InvalidInput
from training.datasets.samples import DataSet, Samples

_TOLERANCE = 1e-5
_SAMPLES = 200


def learner(network: keras.Model, /) -> keras.Model:
    """The network itself; nothing of it is trained."""
    return network


def loss() -> Any:
    """None is needed: recipes of this task have no epochs."""
    return "mse"


def metrics() -> list[Any]:
    """None."""
    return []


def served(network: keras.Model, /) -> keras.Model:
    """The network itself."""
    return network


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`exact`: the share of images in which every pixel is what the definition gives."""
    images = test.inputs[:_SAMPLES]
    found = served.predict(images, verbose=0)[..., 0]
    right = np.abs(found - vertical_edges(images[..., 0])).max(axis=(1, 2)) < _TOLERANCE
    return {"exact": float(right.mean())}


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The images."""
    return {"image": samples.inputs}


def truth(_samples: Samples, /) -> dict[str, Any]:
    """None: what is measured is that the filter is exactly the right one."""
    return {}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input is not that of the data. Raises InvalidInput."""
    if network.input_shape[1:] != data.training.inputs.shape[1:]:
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]}, but the data set has "
            f"samples of {data.training.inputs.shape[1:]}"
        )


def vertical_edges(images: Any) -> Any:
    """Three rows of the column on the left, less those of the column on the right."""
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    return rows[:, :, :-2] - rows[:, :, 2:]
