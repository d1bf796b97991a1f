"""Language: the next word after each of a sentence's. Served: `probabilities` for every place.

Labels int64 [samples, places] are the next words, -1 behind a sentence's end. What is measured is
no sample's loss: the grammar's sentences are all known, with their probabilities.
"""

from typing import Any

import keras

from ridgeline import measures
from ridgeline.errors import InvalidInput
from training.datasets import grammar
from training.datasets.samples import DataSet, Samples


def learner(network: keras.Model, /) -> keras.Model:
    """The network itself."""
    return network


def loss() -> Any:
    """Cross-entropy of each word that belongs to the sentence."""
    return keras.losses.SparseCategoricalCrossentropy(ignore_class=grammar.NOTHING)


def metrics() -> list[Any]:
    """None: where words are drawn, the likeliest one is often another."""
    return []


def served(network: keras.Model, /) -> keras.Model:
    """The network itself."""
    return network


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`excess_entropy`: the expected cross-entropy of a sentence over its least value, less one."""
    answers = served.predict(test.inputs, verbose=0)
    return measures.language({"probabilities": answers}, truth(test))


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The words."""
    return {"words": samples.inputs}


def truth(samples: Samples, /) -> dict[str, Any]:
    """The next words, and how often each sentence comes."""
    return {"label": samples.labels, "probability": grammar.probabilities()}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    places = data.training.inputs.shape[1:]
    expected = (*places, len(data.classes))
    if network.input_shape[1:] != places or network.output_shape[1:] != expected:
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]} and answers "
            f"{network.output_shape[1:]}, but sentences of this data set need {places} "
            f"and {expected}"
        )
