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

from ridgeline.errors import InvalidInput

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
    """One step of an LSTM language model, with the weights of `network`.

    `word` int32 [batch, 1], `hidden` and `memory` [batch, units] become `probabilities`
    [batch, vocabulary], `next_hidden` and `next_memory`. Raises InvalidInput for another kind of
    network.
    """
    recurrent = network.get_layer("memory")
    if not isinstance(recurrent, layers.LSTM):
        raise InvalidInput(f"network {network.name!r} has no LSTM to take one step of")
    word = keras.Input((1,), dtype="int32", name="word")
    state = [keras.Input((recurrent.units,), name=name) for name in ("hidden", "memory")]
    x = network.get_layer("embedding")(word)[:, 0]
    x, (hidden, memory) = recurrent.cell(x, state)
    outputs = {
        "probabilities": network.get_layer("probabilities")(x),
        "next_hidden": hidden,
        "next_memory": memory,
    }
    return keras.Model([word, *state], outputs)
