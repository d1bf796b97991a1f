"""The Transformer as a language model: every word looks at all words before it at once.

    name                  input  multiply-adds  parameters
    transformer_language  16     941,568        58,378

Vaswani and others: Attention Is All You Need, 2017; the decoder alone, with learned places, and
with the normalisation in front of each part, which needs no warm-up. `build_step` is the same
network for one word at a time, which keeps the keys and values of the words before.
"""

import math

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

    def call(
        self, x: keras.KerasTensor, places: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """[batch, places, width] plus the vectors, of the `places` [batch, n] where not of all."""
        return x + (self.vectors if places is None else keras.ops.take(self.vectors, places, 0))


class Look(keras.layers.Layer):  # type: ignore[misc]  # keras publishes no types
    """One place's attention to itself and those before it, whose keys and values were kept."""

    def __init__(self, attention: layers.MultiHeadAttention, *, name: str) -> None:
        """With the weights of `attention`."""
        super().__init__(name=name)
        self.attention = attention

    def call(
        self,
        x: keras.KerasTensor,
        keys: keras.KerasTensor,
        values: keras.KerasTensor,
        here: keras.KerasTensor,
    ) -> tuple[keras.KerasTensor, ...]:
        """The answer [batch, 1, width], and keys and values with those of this place."""
        ops, places = keras.ops, keras.ops.arange(_STEPS)
        is_here = ops.equal(places, here)[..., None, None]
        is_known = ops.less_equal(places, here)[:, None, None]
        keys = ops.where(is_here, self.attention.key_dense(x), keys)
        values = ops.where(is_here, self.attention.value_dense(x), values)
        query = self.attention.query_dense(x)
        answer = ops.dot_product_attention(query, keys, values, mask=is_known)
        return self.attention.output_dense(answer), keys, values


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


def build_step(network: keras.Model) -> keras.Model:
    """One step of such a network, with its weights.

    `word` int32 [batch, 1] and what is known of the words before, `place` int32 [batch, 1], how
    many they were, `keys<n>` and `values<n>` float32 [batch, 16, heads, size] of each block, become
    `probabilities` [batch, vocabulary] of the next word, the `likeliest` int32 [batch, 1],
    `next_place`, `next_keys<n>` and `next_values<n>`. `start` bool [batch, 1] forgets what was
    known. A sentence has 16 places: behind them probabilities are NaN.
    """
    ops, part = keras.ops, network.get_layer
    word, place = (keras.Input((1,), dtype="int32", name=name) for name in ("word", "place"))
    start = keras.Input((1,), dtype="bool", name="start")
    here = ops.where(start, 0, place)
    x = part("places")(part("embedding")(word), places=ops.minimum(here, _STEPS - 1))
    attentions = [layer for layer in network.layers if isinstance(layer, layers.MultiHeadAttention)]
    caches, states = [], {"next_place": here + 1}
    for block, attention in enumerate(attentions, start=1):
        names = (f"keys{block}", f"values{block}")
        size = (_STEPS, attention.num_heads, attention.key_dim)
        before = [keras.Input(size, name=name) for name in names]
        look = Look(attention, name=f"look{block}")
        y, *known = look(part(f"attend{block}_norm")(x), *before, here)
        caches += before
        states |= {f"next_{name}": state for name, state in zip(names, known, strict=True)}
        x = x + y
        y = part(f"think{block}_wide")(part(f"think{block}_norm")(x))
        x = x + part(f"think{block}")(y)
    probabilities = part("probabilities")(part("norm")(x)[:, 0])
    outputs = {
        "probabilities": ops.where(here < _STEPS, probabilities, math.nan),
        "likeliest": ops.top_k(probabilities, k=1)[1],
        **states,
    }
    return keras.Model([word, start, place, *caches], outputs)
