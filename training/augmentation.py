"""Augmentation: each training image is drawn anew in each epoch, by layers before the network.

They are part of the learner, not of the network, so that what is exported is the network alone.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from training.recipe import Augmentation


def augmentation_layers(bounds: Augmentation | None) -> list[keras.Layer]:
    """Layers that change an image at random while training, and let it pass otherwise."""
    if bounds is None:
        return []
    moves = max(bounds.shift, bounds.rotation_degrees, bounds.zoom)
    layers: list[tuple[float, Callable[[], keras.Layer]]] = [
        (bounds.flip, lambda: keras.layers.RandomFlip("horizontal")),
        (moves, lambda: Move(bounds)),
        (bounds.cut_out, lambda: CutOut(bounds.cut_out)),
    ]
    return [make() for bound, make in layers if bound > 0]


class _Redrawn(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """Draws each image anew in training; each subclass in its way, by random numbers of `seeds`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator()

    def call(self, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """[batch, rows, columns, channels], the same; each image has its own random numbers."""
        return self.redraw(images) if training else images

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape."""
        return input_shape

    @abstractmethod
    def redraw(self, images: tf.Tensor) -> tf.Tensor:
        """[batch, rows, columns, channels], the same."""


class Move(_Redrawn):
    """Shifts, turns and zooms each image, all in one interpolation.

    Keras has a layer for each, but images that were interpolated three times are blurred, which
    those to be classed are not. What comes in from outside is 0, MNIST's background.
    """

    def __init__(self, bounds: Augmentation, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bounds = bounds

    def redraw(self, images: tf.Tensor) -> tf.Tensor:
        """[batch, rows, columns, channels], the same; each image is moved in its own way."""
        count, rows, columns, _ = keras.ops.shape(images)
        turn = self._drawn(count, most=math.radians(self.bounds.rotation_degrees))
        zoom = 1 + self._drawn(count, most=self.bounds.zoom)
        right = columns * self._drawn(count, most=self.bounds.shift)
        down = rows * self._drawn(count, most=self.bounds.shift)
        # Where in the image a pixel of the moved one is taken from, about the middle.
        along, across = zoom * keras.ops.cos(turn), zoom * keras.ops.sin(turn)
        x, y = (columns - 1) / 2, (rows - 1) / 2
        from_x = (along, -across, x - along * x + across * y + right)
        from_y = (across, along, y - across * x - along * y + down)
        nothing = keras.ops.zeros_like(turn)
        places = keras.ops.stack([*from_x, *from_y, nothing, nothing], axis=-1)
        return keras.ops.image.affine_transform(images, places, data_format="channels_last")

    def _drawn(self, count: tf.Tensor, *, most: float) -> tf.Tensor:
        return keras.random.uniform((count,), -most, most, dtype="float32", seed=self.seeds)


class CutOut(_Redrawn):
    """Makes a square of each image background (DeVries, Taylor: Cutout, 2017)."""

    def __init__(self, side: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side

    def redraw(self, images: tf.Tensor) -> tf.Tensor:
        """[batch, rows, columns, channels], the same; each square has its own place."""
        shape = keras.ops.shape(images)
        centres = keras.random.uniform((shape[0], 2, 1, 1), seed=self.seeds)
        rows = keras.ops.reshape(keras.ops.linspace(0.0, 1.0, shape[1]), (1, -1, 1))
        columns = keras.ops.reshape(keras.ops.linspace(0.0, 1.0, shape[2]), (1, 1, -1))
        outside = (keras.ops.abs(rows - centres[:, 0]) > self.side / 2) | (
            keras.ops.abs(columns - centres[:, 1]) > self.side / 2
        )
        return images * keras.ops.cast(outside, images.dtype)[..., None]


def mix_up(
    images: tf.Tensor, labels: tf.Tensor, *, most: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Each image takes a share in [0, most] of another of the batch, and so does its label.

    `labels` are shares [batch, classes]. Zhang, Cisse, Dauphin, Lopez-Paz: mixup, 2018.
    """
    share = tf.random.stateless_uniform((tf.shape(images)[0], 1), seed=seed, maxval=most)
    mixed = labels * (1 - share) + labels[::-1] * share
    wide = tf.reshape(share, (-1, *[1] * (len(images.shape) - 1)))
    return images * (1 - wide) + images[::-1] * wide, mixed
