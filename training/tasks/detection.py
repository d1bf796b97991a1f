"""Detection: any number of boxes, each with its class.

Served: `boxes` [batch, 8, 4], `scores` [batch, 8] in falling order, `classes` [batch, 8] and
`count` [batch]: boxes of one class that overlap by half have lost to their best one; rows from
`count` on are zeros. Boxes are (top, left, bottom, right), shares of the image's sides. Labels
float32 [samples, most, 5] hold class and box, the class -1 where there is none.
"""

from typing import Any

import keras
import tensorflow as tf

from ridgeline import measures
from ridgeline.errors import InvalidInput
from training.datasets.samples import DataSet, Samples

_BATCH_SIZE = 200
_MOST = 8
_SCORE = 0.05  # a box below this chance is none
_OVERLAP = 0.5
_BOX_WEIGHT = 5.0


def learner(network: keras.Model, /) -> keras.Model:
    """The network itself: logits of every cell."""
    return network


def loss() -> Any:
    """Of every cell, whether it holds a centre; where it does, also of box and class."""
    return _loss


def metrics() -> list[Any]:
    """None: boxes are counted in the end."""
    return []


def served(network: keras.Model, /) -> keras.Model:
    """The best boxes of the whole image."""
    boxes, scores, classes, count = Suppression(name="suppression")(network.output)
    outputs = {
        "boxes": keras.layers.Identity(name="best_boxes")(boxes),
        "scores": keras.layers.Identity(name="best_scores")(scores),
        "classes": keras.layers.Identity(name="best_classes")(classes),
        "count": keras.layers.Identity(name="found", dtype="int32")(count),
    }
    return keras.Model(network.input, outputs, name=network.name)


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`mean_average_precision` at an overlap of one half, as COCO evaluates it (pycocotools)."""
    found = served.predict(test.inputs, batch_size=_BATCH_SIZE, verbose=0)
    return measures.detection(found, truth(test))


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The images."""
    return {"image": samples.inputs}


def truth(samples: Samples, /) -> dict[str, Any]:
    """Class and box of every object."""
    return {"label": samples.labels}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    sample, expected = data.training.inputs.shape[1:], 5 + len(data.classes)
    if network.input_shape[1:] != sample or network.output_shape[-1] != expected:
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]} and answers "
            f"{network.output_shape[1:]}, but detection in this data set needs {sample} and "
            f"{expected} numbers for each cell"
        )


class Suppression(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """From the logits of all cells to the best boxes of each class (non-maximum suppression)."""

    def call(self, cells: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """[batch, rows, columns, 5 + classes] to boxes, scores, classes and their count."""
        boxes = corners(cells)
        chances = tf.sigmoid(cells[..., :1]) * tf.nn.softmax(cells[..., 5:])
        batch, places = tf.shape(cells)[0], cells.shape[1] * cells.shape[2]
        found = tf.image.combined_non_max_suppression(
            tf.reshape(boxes, (batch, places, 1, 4)),
            tf.reshape(chances, (batch, places, cells.shape[-1] - 5)),
            max_output_size_per_class=_MOST,
            max_total_size=_MOST,
            iou_threshold=_OVERLAP,
            score_threshold=_SCORE,
        )
        return tuple(found)

    def compute_output_spec(self, cells: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        """The shapes and types of the answers."""
        batch = cells.shape[0]
        shapes = ((batch, _MOST, 4), (batch, _MOST), (batch, _MOST))
        whole = [keras.KerasTensor(shape, "float32") for shape in shapes]
        return (*whole, keras.KerasTensor((batch,), "int32"))


def corners(cells: tf.Tensor) -> tf.Tensor:
    """The boxes that cells stand for: [batch, rows, columns, 4], see `training.zoo.detector`."""
    rows, columns = cells.shape[1:3]
    down, right = (tf.range(size, dtype=tf.float32) for size in (rows, columns))
    grid = tf.stack(tf.meshgrid(down, right, indexing="ij"), axis=-1)
    told = tf.sigmoid(cells[..., 1:5])
    centres = (told[..., :2] + grid) / tf.constant([rows, columns], tf.float32)
    return tf.concat([centres - told[..., 2:] / 2, centres + told[..., 2:] / 2], axis=-1)


def cells_of(labels: tf.Tensor, /, *, rows: int, columns: int) -> tuple[tf.Tensor, ...]:
    """Where centres lie [batch, rows, columns], their boxes [..., 4] and classes, by cell."""
    kind, box = tf.cast(labels[..., 0], tf.int32), labels[..., 1:]
    centres = (box[..., :2] + box[..., 2:]) / 2
    places = tf.cast(centres * tf.constant([rows, columns], tf.float32), tf.int32)
    cell = places[..., 0] * columns + places[..., 1]
    chosen = tf.one_hot(tf.where(kind < 0, -1, cell), rows * columns)  # [batch, most, cells]
    held = tf.reduce_max(chosen, axis=1)
    boxes = tf.einsum("bmc,bmk->bck", chosen, box)
    kinds = tf.einsum("bmc,bm->bc", chosen, tf.cast(kind, tf.float32))
    shape = (-1, rows, columns)
    return tf.reshape(held, shape), tf.reshape(boxes, (*shape, 4)), tf.reshape(kinds, shape)


def _loss(labels: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    rows, columns = cells.shape[1:3]
    held, boxes, kinds = cells_of(labels, rows=rows, columns=columns)
    objects = tf.nn.sigmoid_cross_entropy_with_logits(labels=held, logits=cells[..., 0])
    places = tf.reduce_sum(tf.abs(corners(cells) - boxes), axis=-1)
    classes = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(kinds, tf.int32), logits=cells[..., 5:]
    )
    return tf.reduce_sum(objects + held * (_BOX_WEIGHT * places + classes), axis=(1, 2))
