"""The localizer: one network that says what there is in a picture, and where.

    name       input        multiply-adds  parameters
    localizer  48 x 48 x 1  6,876,004      114,811

A small residual trunk, and a map of where to look: class and box are read from the maps at the
places that it weighs most, so that a digit is known wherever it lies. The places' coordinates are
two more maps, from which the box is told.
"""

import keras
import numpy as np
from keras import layers

_TRUNK = ((16, 5, 2), (16, 3, 1), (32, 3, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1), (64, 3, 1))


class Coordinates(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """Adds two maps to others: how far down and how far right each place is, in [0, 1]."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """[batch, rows, columns, maps] with two more maps."""
        rows, columns = x.shape[1:3]
        down, right = np.linspace(0, 1, rows), np.linspace(0, 1, columns)
        grid = np.stack(np.meshgrid(down, right, indexing="ij"), axis=-1)[np.newaxis]
        places = keras.ops.zeros_like(x[..., :2]) + keras.ops.convert_to_tensor(grid, x.dtype)
        return keras.ops.concatenate([x, places], axis=-1)


def build(*, size: int = 48, classes: int = 10) -> keras.Model:
    """`image` [batch, size, size, 1] to `logits` [batch, classes] and `box` [batch, 4].

    The box is (top, left, bottom, right) in [0, 1], shares of the image's side.
    """
    image = keras.Input((size, size, 1), name="image")
    x = image
    for place, (width, kernel, stride) in enumerate(_TRUNK, start=1):
        name = f"conv{place}"
        y = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=name)(x)
        y = layers.BatchNormalization(name=f"{name}_norm")(y)
        if y.shape == x.shape:
            y = layers.Add(name=f"{name}_sum")([x, y])
        x = layers.ReLU(name=f"{name}_relu")(y)
    places = x.shape[1] * x.shape[2]
    look = layers.Reshape((places, 1), name="look_places")(layers.Conv2D(1, 1, name="look")(x))
    weights = layers.Softmax(axis=1, name="look_weights")(look)
    maps = layers.Reshape((places, x.shape[3] + 2), name="maps")(Coordinates(name="where")(x))
    seen = layers.Flatten(name="seen")(layers.Dot(axes=1, name="weighed")([weights, maps]))
    hidden = layers.Dense(64, activation="relu", name="hidden")(seen)
    logits = layers.Dense(classes, name="logits")(seen)
    both = layers.Concatenate(name="hidden_and_seen")([hidden, seen])
    return keras.Model(image, [logits, layers.Dense(4, activation="sigmoid", name="box")(both)])
