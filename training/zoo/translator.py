"""A translator of GNMT's shape: one stack reads, another writes, and looks back at what was read.

    name              input    multiply-adds   parameters
    gnmt              50 + 50  10,451,558,400  274,566,400
    translator_small  12 + 7   1,965,376       201,355

Wu and others: Google's Neural Machine Translation System, 2016: the lowest encoder layer reads both
ways; the lowest decoder layer asks, by attention, and what it finds goes to all layers above it;
layers from the third on add what they were given (the small one has two). Attention is by scalar
products, the paper's by a small network. The large one is there for its cost; nobody trains it
here.
"""

import keras
from keras import layers


def build(
    *,
    source_steps: int,
    target_steps: int,
    source_words: int,
    target_words: int,
    units: int,
    depth: int,
) -> keras.Model:
    """`source` int32 [batch, source_steps] and `target` int32 [batch, target_steps] to `logits`
    [batch, target_steps, target_words], of the word after each of the target's.

    The decoder sees no later word of the target than the one it stands at.
    """
    source = keras.Input((source_steps,), dtype="int32", name="source")
    target = keras.Input((target_steps,), dtype="int32", name="target")
    read = _encode(source, words=source_words, units=units, depth=depth)
    x = layers.Embedding(target_words, units, name="target_embedding")(target)
    asking = layers.LSTM(units, return_sequences=True, name="decoder1")(x)
    found = layers.Attention(name="attention")([asking, read])
    x = asking
    for place in range(2, depth + 1):
        both = layers.Concatenate(name=f"decoder{place}_input")([x, found])
        y = layers.LSTM(units, return_sequences=True, name=f"decoder{place}")(both)
        x = layers.Add(name=f"decoder{place}_sum")([x, y]) if place > 2 else y
    return keras.Model([source, target], layers.Dense(target_words, name="logits")(x))


def _encode(source: keras.KerasTensor, *, words: int, units: int, depth: int) -> keras.KerasTensor:
    x = layers.Embedding(words, units, name="source_embedding")(source)
    both_ways = layers.LSTM(units, return_sequences=True)
    x = layers.Bidirectional(both_ways, merge_mode="concat", name="encoder1")(x)
    for place in range(2, depth + 1):
        y = layers.LSTM(units, return_sequences=True, name=f"encoder{place}")(x)
        x = layers.Add(name=f"encoder{place}_sum")([x, y]) if place > 2 else y
    return x
