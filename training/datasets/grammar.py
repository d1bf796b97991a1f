"""Sentences over the course's vocabulary, from a grammar whose entropy is known exactly.

    sentence  ->  subject [on place] sleeps [on place] EOS
    subject   ->  determiner (dog | cat)
    place     ->  determiner (bed | floor)

Whose bed it is depends on who sleeps: after "on" the subject's own determiner comes again in 70 of
100 cases. A model has to remember the second word back at the end. There are 294 sentences with
their probabilities, so a model's expected loss is a sum, without any noise of a sample, and the
least possible loss is the entropy.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from training.datasets.samples import DataSet, Samples

WORDS = ("EOS", "a", "my", "sleeps", "on", "dog", "cat", "the", "bed", "floor")
EOS = 0
STEPS = 16
NOTHING = -1  # the label behind a sentence's end
_DETERMINERS = {"a": 0.5, "my": 0.2, "the": 0.3}
_ANIMALS = {"dog": 0.6, "cat": 0.4}
_PLACES = {"bed": 0.7, "floor": 0.3}
_BEFORE, _AFTER = 0.2, 0.6  # how often a place is told, before and after the verb
_SAME = 0.7  # how often a place has the subject's determiner
_TRAINING = 20_000
_SEED = 5


def load() -> DataSet:
    """Drawn sentences to learn from; for testing every sentence that there is, see `probabilities`.

    Inputs int32 [samples, 16] begin with EOS, which stands for the sentence's beginning, and are
    filled with it; labels int64 [samples, 16] are the next words, -1 behind the end.
    """
    found = sentences()
    random = np.random.default_rng(_SEED)
    drawn = random.choice(len(found), size=_TRAINING, p=list(found.values()))
    everything = _samples(list(found))
    return DataSet(training=everything.take(drawn), test=everything, classes=WORDS)


def sentences() -> dict[tuple[str, ...], float]:
    """Every sentence, without EOS, with its probability."""
    found = {}
    for determiner, often in _DETERMINERS.items():
        for animal, how_often in _ANIMALS.items():
            for before, share in _maybe_place(determiner, told=_BEFORE):
                for after, other in _maybe_place(determiner, told=_AFTER):
                    words = (determiner, animal, *before, "sleeps", *after)
                    found[words] = often * how_often * share * other
    return found


def probabilities() -> NDArray[np.float64]:
    """How often each sentence of the test set comes, in its order; they add up to 1."""
    return np.array(list(sentences().values()))


def entropy_nats() -> float:
    """The entropy of a sentence: no model can have a lower expected loss for all its words."""
    return -sum(often * math.log(often) for often in sentences().values())


def _maybe_place(determiner: str, *, told: float) -> Iterator[tuple[tuple[str, ...], float]]:
    yield (), 1 - told
    others = 1 - _DETERMINERS[determiner]
    for other, often in _DETERMINERS.items():
        share = _SAME if other == determiner else (1 - _SAME) * often / others
        for place, how_often in _PLACES.items():
            yield ("on", other, place), told * share * how_often


def _samples(found: list[tuple[str, ...]]) -> Samples:
    inputs = np.full((len(found), STEPS), EOS, np.int32)
    labels = np.full((len(found), STEPS), NOTHING, np.int64)
    for row, words in enumerate(found):
        numbers = [WORDS.index(word) for word in words]
        inputs[row, 1 : len(words) + 1] = numbers
        labels[row, : len(words) + 1] = [*numbers, EOS]
    return Samples(inputs=inputs, labels=labels)
