"""Local response normalisation, which AlexNet and GoogLeNet have where batches are today."""

import keras
import tensorflow as tf


class LocalResponseNormalization(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """Divides each map by a power of the energy of its neighbours, as the papers do.

    x / (k + alpha / n * sum of squares over n = 5 maps) ** beta, with AlexNet's k = 2, alpha = 5e-4
    (written 1e-4 per map in the paper) and beta = 0.75.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalise [batch, rows, columns, maps]."""
        return tf.nn.local_response_normalization(x, depth_radius=2, bias=2, alpha=1e-4, beta=0.75)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same shape."""
        return input_shape
