"""Segmentation: a class for every pixel. Served: `mask` int32 [batch, rows, columns].

Labels uint8 [samples, rows, columns]: 0 for nothing, 1 + the class on an object.
"""

from typing import Any

import keras
import tensorflow as tf

from ridgeline import measures
from ridgeline.errors import InvalidInput
from training.datasets.samples import DataSet, Samples

_BATCH_SIZE = 100
# Of which class an object's pixel has, beside whether it has one: nine in ten pixels have none, and
# without the weight a network answers "nothing" everywhere for longer than it is trained.
_CLASS_WEIGHT = 10.0


def learner(network: keras.Model, /) -> keras.Model:
    """The network itself: logits for every pixel."""
    return network


def loss() -> Any:
    """Cross-entropy of every pixel, in two parts: is there an object, and of which class."""
    return _loss


def metrics() -> list[Any]:
    """The share of right pixels."""
    return ["accuracy"]


def served(network: keras.Model, /) -> keras.Model:
    """The likeliest class of every pixel."""
    mask = Likeliest(name="mask", dtype="int32")(network.output)
    return keras.Model(network.input, mask, name=network.name)


class Likeliest(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """The class of the largest logit. Keras' own argmax has operators that ONNX does not know."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        """[..., classes] to int32 [...]."""
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    def compute_output_spec(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """One number instead of the logits."""
        return keras.KerasTensor(logits.shape[:-1], "int32")


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`mean_iou`: over the classes, nothing included, of their pixels in the whole test set."""
    masks = served.predict(test.inputs, batch_size=_BATCH_SIZE, verbose=0)
    return measures.segmentation({"mask": masks}, truth(test))


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The images."""
    return {"image": samples.inputs}


def truth(samples: Samples, /) -> dict[str, Any]:
    """The class of every pixel."""
    return {"label": samples.labels}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    expected = (*data.training.labels.shape[1:], len(data.classes) + 1)
    sample = data.training.inputs.shape[1:]
    if network.input_shape[1:] != sample or network.output_shape[1:] != expected:
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]} and answers "
            f"{network.output_shape[1:]}, but masks of this data set need {sample} and {expected}"
        )


def _loss(labels: Any, logits: Any) -> Any:
    """-log p(object or nothing), and weighed, on objects, -log p(class | object)."""
    ops = keras.ops
    labels = ops.cast(labels, "int32")
    held = ops.cast(labels > 0, logits.dtype)
    odds = ops.logsumexp(logits[..., 1:], axis=-1) - logits[..., 0]  # of an object, logarithmic
    objects = ops.softplus(odds) - held * odds
    classes = keras.losses.sparse_categorical_crossentropy(
        ops.maximum(labels - 1, 0), logits[..., 1:], from_logits=True
    )
    return objects + _CLASS_WEIGHT * held * classes
