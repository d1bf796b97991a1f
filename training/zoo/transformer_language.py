"""The Transformer as a language model: every word looks at all words before it at once.

    name                  input  multiply-adds  parameters
    transformer_language  16     941,568        58,378

Vaswani and others: Attention Is All You Need, 2017; the decoder alone, with learned places, and
with the normalisation in front of each part, which needs no warm-up.
"""

import keras
from keras import layers

_STEPS = 16


class Places(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """Adds a learned vector for each place in the sentence."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the vectors: one for each place."""
        self.vectors = self.add_weight(
            shape=input_shape[1:], initializer="random_normal", name="vectors"
        )

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """[batch, places, width] plus the vectors."""
        return x + self.vectors


def build(*, vocabulary: int = 10, width: int = 48, heads: int = 4, blocks: int = 2) -> keras.Model:
    """`words` int32 [batch, 16] to `probabilities` [batch, 16, vocabulary] of each next word."""
    words = keras.Input((_STEPS,), dtype="int32", name="words")
    x = layers.Embedding(vocabulary, width, name="embedding")(words)
    x = Places(name="places")(x)
    for block in range(1, blocks + 1):
        y = layers.LayerNormalization(name=f"attend{block}_norm")(x)
        attention = layers.MultiHeadAttention(heads, width // heads, name=f"attend{block}")
        x = layers.Add(name=f"attend{block}_sum")([x, attention(y, y, use_causal_mask=True)])
        y = layers.LayerNormalization(name=f"think{block}_norm")(x)
        y = layers.Dense(4 * width, activation="relu", name=f"think{block}_wide")(y)
        y = layers.Dense(width, name=f"think{block}")(y)
        x = layers.Add(name=f"think{block}_sum")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    probabilities = layers.Dense(vocabulary, activation="softmax", name="probabilities")(x)
    return keras.Model(words, probabilities)
