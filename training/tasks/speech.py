"""Speech: the words spoken in a recording, without being told when.

Served: `words` int32 [batch, frames]: the likeliest unit of every frame, repetitions and blanks
taken out in the graph, -1 behind the last word. Labels int64 [samples, most words], -1 behind them.
"""

from typing import Any

import keras
import tensorflow as tf

from ridgeline import measures
from ridgeline.errors import InvalidInput
from training.datasets.samples import DataSet, Samples

_BATCH_SIZE = 200
_NOTHING = -1


def learner(network: keras.Model, /) -> keras.Model:
    """The network itself: logits of every frame, the blank last."""
    return network


def loss() -> Any:
    """How unlikely all alignments of words with frames are (Graves and others: CTC, 2006)."""
    return _loss


def metrics() -> list[Any]:
    """None: words are compared in the end."""
    return []


def served(network: keras.Model, /) -> keras.Model:
    """The words of the likeliest alignment."""
    words = GreedyWords(name="words", dtype="int32")(network.output)
    return keras.Model(network.input, words, name=network.name)


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`word_error`: words wrong, missing or too many, for each word that was spoken."""
    found = served.predict(test.inputs, batch_size=_BATCH_SIZE, verbose=0)
    return measures.speech({"words": found}, truth(test))


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The bands of frequency."""
    return {"features": samples.inputs}


def truth(samples: Samples, /) -> dict[str, Any]:
    """The words."""
    return {"label": samples.labels}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    sample, units = data.training.inputs.shape[1:], len(data.classes) + 1
    if network.input_shape[1:] != sample or network.output_shape[-1] != units:
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]} and answers "
            f"{network.output_shape[1:]}, but speech of this data set needs {sample} and "
            f"{units} units a frame"
        )


class GreedyWords(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """The likeliest unit of every frame, less repetitions and blanks, moved to the front."""

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits [batch, frames, words + 1] to words int32 [batch, frames], -1 behind the last."""
        logits = tf.cast(logits, tf.float32)
        frames, blank = logits.shape[1], logits.shape[2] - 1
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        before = tf.concat([tf.fill((tf.shape(best)[0], 1), blank), best[:, :-1]], axis=1)
        kept = (best != blank) & (best != before)
        counted = tf.cumsum(tf.cast(kept, tf.int32), axis=1)
        # The word at a place is that of the kept frame up to which so many were kept.
        wanted = tf.range(1, frames + 1)
        chosen = kept[:, None, :] & (counted[:, None, :] == wanted[None, :, None])
        words = tf.reduce_sum(tf.where(chosen, best[:, None, :] + 1, 0), axis=2)
        return words + _NOTHING

    def compute_output_spec(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Whole numbers [batch, frames]."""
        return keras.KerasTensor(logits.shape[:2], "int32")


def _loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    lengths = tf.reduce_sum(tf.cast(labels != _NOTHING, tf.int32), axis=1)
    frames = tf.fill((tf.shape(logits)[0],), logits.shape[1])
    return tf.nn.ctc_loss(
        labels=tf.cast(tf.maximum(labels, 0), tf.int32),
        logits=tf.cast(logits, tf.float32),
        label_length=lengths,
        logit_length=frames,
        logits_time_major=False,
        blank_index=logits.shape[2] - 1,
    )
