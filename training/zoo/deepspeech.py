"""A network of Deep Speech 2's shape: convolutions, recurrent layers both ways, CTC.

    name              input      multiply-adds  parameters
    deepspeech        300 x 161  8,374,396,800  105,897,341
    deepspeech_small  160 x 40   9,429,760      115,379

Amodei and others: Deep Speech 2: End-to-End Speech Recognition in English and Mandarin, 2016: two
convolutions over time and frequency, seven bidirectional recurrent layers (LSTM here, for which
ONNX has an operator that runs both ways), a dense layer, and one more unit than there are words,
the blank of connectionist temporal classification. The large one is there for its cost; nobody
trains it here.
"""

import keras
from keras import layers


def build(
    *, steps: int, bands: int, maps: int, units: int, recurrent: int, vocabulary: int
) -> keras.Model:
    """`features` [batch, steps, bands] to `logits` [batch, steps / 4, vocabulary + 1].

    The last unit is the blank.
    """
    features = keras.Input((steps, bands), name="features")
    x = layers.Reshape((steps, bands, 1), name="plane")(features)
    for place, (kernel, stride) in enumerate((((11, 15), (2, 2)), ((11, 11), (2, 2))), start=1):
        name = f"conv{place}"
        x = layers.Conv2D(maps, kernel, stride, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]), name="frames")(x)
    for place in range(1, recurrent + 1):
        layer = layers.LSTM(units, return_sequences=True)
        x = layers.Bidirectional(layer, merge_mode="concat", name=f"recurrent{place}")(x)
    return keras.Model(features, layers.Dense(vocabulary + 1, name="logits")(x))
