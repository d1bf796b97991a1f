"""Localization: what there is in the image, and its box. Served: `probabilities` and `box`.

Boxes are (top, left, bottom, right), shares of the image's sides. Labels float32 [samples, 5] hold
the class and the box.
"""

from typing import Any

import keras

from ridgeline import measures
from ridgeline.errors import InvalidInput
from training.datasets.samples import DataSet, Samples

_BATCH_SIZE = 500
_BOX_WEIGHT = 10.0  # of the box's loss beside the class': both then fall alike


def learner(network: keras.Model, /) -> keras.Model:
    """Class logits and box in one row: [batch, classes + 4]."""
    row = keras.ops.concatenate(network.outputs, axis=-1)
    return keras.Model(network.input, row, name=network.name)


def loss() -> Any:
    """Cross-entropy of the class, and what the boxes lack in overlap and in place."""
    return _loss


def metrics() -> list[Any]:
    """The share of right classes."""
    return [_accuracy]


def served(network: keras.Model, /) -> keras.Model:
    """Probabilities instead of logits."""
    logits, box = network.outputs
    outputs = {
        "probabilities": keras.layers.Softmax(name="probabilities")(logits),
        "box": keras.layers.Identity(name="corners")(box),
    }
    return keras.Model(network.input, outputs, name=network.name)


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`accuracy` of the class, and `mean_iou`, the mean overlap of the boxes."""
    answers = served.predict(test.inputs, batch_size=_BATCH_SIZE, verbose=0)
    return measures.localization(answers, truth(test))


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The images."""
    return {"image": samples.inputs}


def truth(samples: Samples, /) -> dict[str, Any]:
    """The class and the box."""
    return {"label": samples.labels}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    shapes = [tensor.shape[1:] for tensor in (*network.inputs, *network.outputs)]
    expected = [data.training.inputs.shape[1:], (len(data.classes),), (4,)]
    if shapes != expected or data.training.labels.shape[1:] != (5,):
        raise InvalidInput(
            f"network {network.name!r} has the shapes {shapes}, localizing in this data set "
            f"needs {expected}"
        )


def _loss(labels: Any, answers: Any) -> Any:
    ops = keras.ops
    box, truth = answers[:, -4:], labels[:, 1:]
    classes = keras.losses.sparse_categorical_crossentropy(
        ops.cast(labels[:, 0], "int32"), answers[:, :-4], from_logits=True
    )
    low, high = ops.maximum(box[:, :2], truth[:, :2]), ops.minimum(box[:, 2:], truth[:, 2:])
    both = ops.prod(ops.relu(high - low), axis=-1)
    areas = ops.prod(ops.relu(box[:, 2:] - box[:, :2]), axis=-1) + ops.prod(
        truth[:, 2:] - truth[:, :2], axis=-1
    )
    lacking = 1 - both / (areas - both + 1e-6)
    # Boxes that do not touch have no gradient of their overlap: the distance brings them together.
    return classes + lacking + _BOX_WEIGHT * ops.mean(ops.abs(box - truth), axis=-1)


def _accuracy(labels: Any, answers: Any) -> Any:
    return keras.metrics.sparse_categorical_accuracy(labels[:, 0], answers[:, :-4])


_accuracy.__name__ = "accuracy"  # what Keras calls the figure
