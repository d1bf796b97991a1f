"""The localizer: one network that says what there is in a picture, and where.

    name       input        multiply-adds  parameters
    localizer  48 x 48 x 1  13,101,184     143,983

A small residual trunk goes down to an eighth of the sides. The class is read from its maps at the
places that one more map weighs most, so that a digit is known wherever it lies. For the box, the
maps rise to half of the sides again and are joined by what was seen on the way down; every edge has
a map of where it may lie, and is the mean of all places weighed by it (Levine, Finn, Darrell,
Abbeel: End-to-End Training of Deep Visuomotor Policies, 2016, spatial softmax): finer than a pixel.
"""

import keras
import numpy as np
from keras import layers

_TRUNK = ((16, 5, 2), (16, 3, 1), (32, 3, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1), (64, 3, 1))
_RISE = (32, 16)


class Edges(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """The edges of a box from a map for each: the mean row or column, weighed by its softmax."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """[batch, rows, columns, 4] to (top, left, bottom, right) in [0, 1]: [batch, 4]."""
        rows, columns = x.shape[1:3]
        down, right = np.linspace(0, 1, rows), np.linspace(0, 1, columns)
        grid = np.stack(np.meshgrid(down, right, indexing="ij"), axis=-1).reshape(1, -1, 2)
        places = keras.ops.convert_to_tensor(np.tile(grid, 2), x.dtype)
        weights = keras.ops.softmax(keras.ops.reshape(x, (-1, rows * columns, 4)), axis=1)
        return keras.ops.sum(weights * places, axis=1)


def build(*, size: int = 48, classes: int = 10) -> keras.Model:
    """`image` [batch, size, size, 1] to `logits` [batch, classes] and `box` [batch, 4].

    The box is (top, left, bottom, right) in [0, 1], shares of the image's side.
    """
    image = keras.Input((size, size, 1), name="image")
    x, passed = image, []
    for place, (width, kernel, stride) in enumerate(_TRUNK, start=1):
        if place > 1 and stride > 1:
            passed.append(x)
        x = _convolution(x, width=width, kernel=kernel, stride=stride, name=f"conv{place}")
    places = x.shape[1] * x.shape[2]
    look = layers.Reshape((places, 1), name="look_places")(layers.Conv2D(1, 1, name="look")(x))
    weights = layers.Softmax(axis=1, name="look_weights")(look)
    maps = layers.Reshape((places, x.shape[3]), name="maps")(x)
    seen = layers.Flatten(name="seen")(layers.Dot(axes=1, name="weighed")([weights, maps]))
    logits = layers.Dense(classes, name="logits")(seen)
    for place, width in enumerate(_RISE, start=1):
        x = layers.Conv2DTranspose(width, 2, 2, name=f"rise{place}")(x)
        x = layers.Concatenate(name=f"join{place}")([x, passed.pop()])
        x = _convolution(x, width=width, kernel=3, stride=1, name=f"up{place}")
    edges = layers.Conv2D(4, 3, padding="same", name="edges")(x)
    return keras.Model(image, [logits, Edges(name="box")(edges)])


def _convolution(
    x: keras.KerasTensor, *, width: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    """Normalised; adds what it was given where that has its shape."""
    y = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=name)(x)
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    if y.shape == x.shape:
        y = layers.Add(name=f"{name}_sum")([x, y])
    return layers.ReLU(name=f"{name}_relu")(y)
