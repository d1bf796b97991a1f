"""The perceptron: one layer that weighs every pixel once for each class.

    name        input        multiply-adds  parameters
    perceptron  32 x 32 x 1  10,240         10,250

Rosenblatt: The Perceptron, 1958; with softmax in place of the threshold, so that it can be trained
by gradient descent: it draws one straight line between any two classes.
"""

import keras
from keras import layers


def build(*, classes: int = 10) -> keras.Model:
    """The network: `image` [batch, 32, 32, 1] in [0, 1] to `probabilities` [batch, classes]."""
    image = keras.Input((32, 32, 1), name="image")
    x = layers.Flatten(name="flatten")(image)  # 1,024
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)
