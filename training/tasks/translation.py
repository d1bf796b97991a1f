"""Translation: one sequence for another. Served: `source` to `digits`, -1 behind the last.

The decoder is run greedily in the graph, one step after the other: each step is given the word that
the step before found likeliest. Labels int64 [samples, target steps], -1 behind the end.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ridgeline import measures
from ridgeline.errors import InvalidInput
from training.datasets import number_words
from training.datasets.samples import DataSet, Samples

_BATCH_SIZE = 500


def learner(network: keras.Model, /) -> keras.Model:
    """From words and given digits in one row to the logits of the digits after each."""
    steps = network.inputs[0].shape[1]
    both = keras.Input((steps + network.inputs[1].shape[1],), dtype="int32", name="both")
    return keras.Model(both, network([both[:, :steps], both[:, steps:]]), name=network.name)


def loss() -> Any:
    """Cross-entropy of each digit that belongs to the number, and of its end."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=number_words.NOTHING
    )


def metrics() -> list[Any]:
    """None: a share of right digits says little of whole numbers."""
    return []


def served(network: keras.Model, /) -> keras.Model:
    """Words in, digits out."""
    source = keras.Input(network.inputs[0].shape[1:], dtype="int32", name="source")
    digits = GreedyDecoder(network, end=number_words.END, name="digits")(source)
    return keras.Model(source, digits, name=network.name)


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`exact`: the share of numbers with every digit right."""
    found = served.predict(served_inputs(test)["source"], batch_size=_BATCH_SIZE, verbose=0)
    return measures.translation({"digits": found}, truth(test))


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The words."""
    return {"source": samples.inputs[:, : number_words.WORD_STEPS]}


def truth(samples: Samples, /) -> dict[str, Any]:
    """The digits, without what ends them."""
    return {
        "label": np.where(samples.labels == number_words.END, number_words.NOTHING, samples.labels)
    }


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose inputs or output are not those of the data. Raises InvalidInput."""
    steps = [tensor.shape[1] for tensor in network.inputs]
    given, expected = data.training.inputs.shape[1], data.training.labels.shape[1]
    if sum(steps) != given or network.output_shape[1:] != (expected, len(data.classes)):
        raise InvalidInput(
            f"network {network.name!r} takes {steps} words and answers {network.output_shape[1:]}, "
            f"but the data set has {given} words a sample and {expected} of {len(data.classes)} "
            "kinds to answer"
        )


class GreedyDecoder(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """Runs a network of `training.zoo.translator` step by step, with its own weights."""

    def __init__(self, network: keras.Model, *, end: int, **kwargs: Any) -> None:
        super().__init__(dtype="int32", **kwargs)
        self._steps, self._end = network.inputs[1].shape[1], end
        read = network.get_layer("attention").input[1]
        self._encoder = keras.Model(network.inputs[0], read)
        self._embedding = network.get_layer("target_embedding")
        self._logits = network.get_layer("logits")
        names = {layer.name for layer in network.layers}
        depth = sum(f"decoder{place}" in names for place in range(1, len(names)))
        self._decoders = [network.get_layer(f"decoder{place}") for place in range(1, depth + 1)]

    def call(self, source: tf.Tensor) -> tf.Tensor:
        """Words [batch, steps] to likeliest words [batch, target steps], -1 from END on."""
        read = self._encoder(source)
        batch = tf.shape(source)[0]
        word = tf.fill((batch,), self._end)
        over = tf.zeros((batch,), tf.bool)
        states = [[tf.zeros((batch, one.units)) for _ in range(2)] for one in self._decoders]
        answers = []
        for _ in range(self._steps):
            logits, states = self._step(word, states=states, read=read)
            word = tf.argmax(logits, axis=-1, output_type=tf.int32)
            over = over | (word == self._end)
            answers.append(tf.where(over, number_words.NOTHING, word))
        return tf.stack(answers, axis=1)

    def _step(
        self, word: tf.Tensor, *, states: list[list[tf.Tensor]], read: tf.Tensor
    ) -> tuple[tf.Tensor, list[list[tf.Tensor]]]:
        x, first = self._decoders[0].cell(self._embedding(word), states[0])
        weights = tf.nn.softmax(tf.einsum("bu,bsu->bs", x, read))
        found = tf.einsum("bs,bsu->bu", weights, read)
        after = [first]
        for place, decoder in enumerate(self._decoders[1:], start=2):
            y, state = decoder.cell(tf.concat([x, found], axis=-1), states[place - 1])
            x = x + y if place > 2 else y
            after.append(state)
        return self._logits(x), after

    def compute_output_spec(self, source: keras.KerasTensor) -> keras.KerasTensor:
        """Whole numbers [batch, target steps]."""
        return keras.KerasTensor((source.shape[0], self._steps), "int32")
