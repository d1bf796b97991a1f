"""The multilayer perceptron: two hidden layers that see every pixel and know nothing of places.

    name  input        multiply-adds  parameters
    mlp   32 x 32 x 1  296,192        296,586

ReLU after the hidden layers, softmax at the end. It shows what convolutions are worth.
"""

import keras
from keras import layers


def build(*, classes: int = 10) -> keras.Model:
    """The network: `image` [batch, 32, 32, 1] in [0, 1] to `probabilities` [batch, classes]."""
    image = keras.Input((32, 32, 1), name="image")
    x = layers.Flatten(name="flatten")(image)  # 1,024
    x = layers.Dense(256, activation="relu", name="hidden1")(x)
    x = layers.Dense(128, activation="relu", name="hidden2")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)
