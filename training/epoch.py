"""An epoch as it is told: a point of the learning curve, to people and to TensorBoard."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorflow as tf


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve.

    `loss` and `accuracy` are means over the epoch's batches, as the network saw them (augmented,
    and while it still learned); `val_loss` and `val_accuracy` those of the network after it; tasks
    without such a figure have no accuracy. `learning_rate` is that which the schedule has come to.
    """

    epoch: int
    loss: float
    val_loss: float
    learning_rate: float
    seconds: float
    accuracy: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True)
class Progress:
    """What watches a run is told after each step: how far it is, how fast."""

    epoch: int
    epochs: int
    step: int
    steps: int
    flops_per_s: float
    last: Epoch | None


Watcher = Callable[[Progress], object]


def write_logs(folder: Path | None, *, point: Epoch) -> None:
    """Append a point of the curve to the folder, for TensorBoard."""
    if folder is None:
        return
    summary = tf.compat.v1.Summary  # tf.summary.scalar would need TensorBoard itself
    values = [
        summary.Value(tag=name, simple_value=value)
        for name, value in asdict(point).items()
        if name != "epoch" and value is not None
    ]
    with tf.summary.create_file_writer(str(folder)).as_default():
        encoded = summary(value=values).SerializeToString()
        tf.summary.experimental.write_raw_pb(encoded, step=point.epoch)
