"""Augmentation: each training image is drawn anew in each epoch, by layers before the network.

They are part of the learner, not of the network, so that what is exported is the network alone.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from training.recipe import Augmentation


def augmentation_layers(bounds: Augmentation | None) -> list[keras.Layer]:
    """Layers that change an image at random while training, and let it pass otherwise."""
    if bounds is None:
        return []
    blank: dict[str, Any] = {"fill_mode": "constant", "fill_value": 0.0}  # MNIST's background
    turn = bounds.rotation_degrees / 360
    layers: list[tuple[float, Callable[[], keras.Layer]]] = [
        (bounds.flip, lambda: keras.layers.RandomFlip("horizontal")),
        (bounds.shift, lambda: keras.layers.RandomTranslation(bounds.shift, bounds.shift, **blank)),
        (turn, lambda: keras.layers.RandomRotation(turn, **blank)),
        (bounds.zoom, lambda: keras.layers.RandomZoom(bounds.zoom, **blank)),
        (bounds.cut_out, lambda: CutOut(bounds.cut_out)),
    ]
    return [make() for bound, make in layers if bound > 0]


class CutOut(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """Makes a square of each image background (DeVries, Taylor: Cutout, 2017)."""

    def __init__(self, side: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side
        self.seeds = keras.random.SeedGenerator()

    def call(self, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """[batch, rows, columns, channels], the same; each square has its own place."""
        if not training:
            return images
        shape = keras.ops.shape(images)
        centres = keras.random.uniform((shape[0], 2, 1, 1), seed=self.seeds)
        rows = keras.ops.reshape(keras.ops.linspace(0.0, 1.0, shape[1]), (1, -1, 1))
        columns = keras.ops.reshape(keras.ops.linspace(0.0, 1.0, shape[2]), (1, 1, -1))
        outside = (keras.ops.abs(rows - centres[:, 0]) > self.side / 2) | (
            keras.ops.abs(columns - centres[:, 1]) > self.side / 2
        )
        return images * keras.ops.cast(outside, images.dtype)[..., None]

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape."""
        return input_shape


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
