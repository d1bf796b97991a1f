"""Recurrent language models: what they have read is in their state, and tells the next word.

    name           input  multiply-adds  parameters
    lstm_language  16     204,288        13,130
    gru_language   16     155,136        10,154

Hochreiter, Schmidhuber: Long Short-Term Memory, 1997; Cho and others: Learning Phrase
Representations using RNN Encoder-Decoder, 2014. `build_step` is the same network for one word at a
time, whose state goes in and comes out, for serving a sentence word by word.
"""

import keras
from keras import layers

_STEPS = 16  # words; sentences of the grammar have at most 10


def build(*, cell: str, vocabulary: int = 10, units: int = 48) -> keras.Model:
    """`words` int32 [batch, 16] to `probabilities` [batch, 16, vocabulary] of each next word."""
    words = keras.Input((_STEPS,), dtype="int32", name="words")
    x = layers.Embedding(vocabulary, 16, name="embedding")(words)
    if cell == "lstm":
        x = layers.LSTM(units, return_sequences=True, name="memory")(x)
    else:
        x = layers.GRU(units, return_sequences=True, name="memory")(x)
    probabilities = layers.Dense(vocabulary, activation="softmax", name="probabilities")(x)
    return keras.Model(words, probabilities)


def build_step(network: keras.Model) -> keras.Model:
    """One step of such a network, with its weights.

    `word` int32 [batch, 1], the states `hidden` and, of an LSTM, `memory` float32 [batch, units],
    and `start` bool [batch, 1], which makes the states zeros, become `probabilities`
    [batch, vocabulary] of the next word, the `likeliest` int32 [batch, 1], `next_hidden` and
    `next_memory`.
    """
    recurrent = network.get_layer("memory")
    names = ("hidden", "memory") if isinstance(recurrent, layers.LSTM) else ("hidden",)
    word = keras.Input((1,), dtype="int32", name="word")
    start = keras.Input((1,), dtype="bool", name="start")
    states = [keras.Input((recurrent.units,), name=name) for name in names]
    x = network.get_layer("embedding")(word)[:, 0]
    x, following = recurrent.cell(x, [keras.ops.where(start, 0.0, state) for state in states])
    probabilities = network.get_layer("probabilities")(x)
    outputs = {
        "probabilities": probabilities,
        "likeliest": keras.ops.top_k(probabilities, k=1)[1],
        **{f"next_{name}": state for name, state in zip(names, following, strict=True)},
    }
    return keras.Model([word, start, *states], outputs)
