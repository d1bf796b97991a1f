"""Classification: one label for each sample; the network answers `probabilities`."""

from typing import Any

import keras
import numpy as np

from ridgeline.errors import InvalidInput
from training.datasets.samples import DataSet, Samples

_BATCH_SIZE = 1000
_OUTPUT = "probabilities"
_AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as in GoogLeNet's paper


def learner(network: keras.Model, /) -> keras.Model:
    """The network; with auxiliary heads, all answers [batch, heads, classes], its own first."""
    if len(network.outputs) == 1:
        return network
    return keras.Model(network.input, keras.ops.stack(network.outputs, axis=1), name=network.name)


def loss() -> Any:
    """Cross-entropy with numbers of labels, or with shares of labels where images are mixed."""
    return _cross_entropy


def metrics() -> list[Any]:
    """The share of right labels."""
    return [_accuracy]


def _cross_entropy(labels: Any, answers: Any) -> Any:
    if len(answers.shape) == 3:
        heads = [_cross_entropy(labels, answers[:, head]) for head in range(answers.shape[1])]
        return heads[0] + _AUXILIARY_WEIGHT * sum(heads[1:])
    if len(labels.shape) == 2 and labels.shape[-1] == answers.shape[-1]:
        return keras.losses.categorical_crossentropy(labels, answers)
    return keras.losses.sparse_categorical_crossentropy(labels, answers)


def _accuracy(labels: Any, answers: Any) -> Any:
    if len(answers.shape) == 3:
        answers = answers[:, 0]
    if len(labels.shape) == 2 and labels.shape[-1] == answers.shape[-1]:
        return keras.metrics.categorical_accuracy(labels, answers)
    return keras.metrics.sparse_categorical_accuracy(labels, answers)


_accuracy.__name__ = "accuracy"  # what Keras calls the figure


def served(network: keras.Model, /) -> keras.Model:
    """The network without the auxiliary heads that it may have for training."""
    if network.output_names == [_OUTPUT]:
        return network
    answer = network.outputs[network.output_names.index(_OUTPUT)]
    return keras.Model(network.input, answer, name=network.name)


def measure(served: keras.Model, /, *, test: Samples) -> dict[str, float]:
    """`accuracy`: the share of samples classed rightly."""
    return {"accuracy": count_correct(served, samples=test) / len(test)}


def served_inputs(samples: Samples, /) -> dict[str, Any]:
    """The images."""
    return {"image": samples.inputs}


def truth(samples: Samples, /) -> dict[str, Any]:
    """The class of every sample."""
    return {"label": samples.labels}


def check_fits(network: keras.Model, /, *, data: DataSet) -> None:
    """Refuse a network whose input or output is not that of the data. Raises InvalidInput."""
    sample, classes = data.training.inputs.shape[1:], len(data.classes)
    answer = served(network).output_shape
    if network.input_shape[1:] != sample or answer[1:] != (classes,):
        raise InvalidInput(
            f"network {network.name!r} takes {network.input_shape[1:]} and answers "
            f"{answer[1:]}, but the data set has samples of {sample} "
            f"in {classes} classes"
        )


def count_correct(network: keras.Model, *, samples: Samples) -> int:
    """How many samples the network classes rightly; an answer that is not finite is wrong."""
    answers = network.predict(samples.inputs, batch_size=_BATCH_SIZE, verbose=0)
    right = np.isfinite(answers).all(axis=1) & (answers.argmax(axis=1) == samples.labels)
    return int(right.sum())
