"""LeNet-5: three convolutions with subsampling between them, then two dense layers.

    name    input        multiply-adds  parameters
    lenet5  32 x 32 x 1  416,520        61,706

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, 1998; as
courses give it today: full connections between the maps, plain averages for subsampling, softmax.
"""

import keras
from keras import layers


def build(*, classes: int = 10) -> keras.Model:
    """The network: `image` [batch, 32, 32, 1] in [0, 1] to `probabilities` [batch, classes]."""
    image = keras.Input((32, 32, 1), name="image")
    x = layers.Conv2D(6, 5, activation="tanh", name="conv1")(image)  # 28 x 28 x 6
    x = layers.AveragePooling2D(2, name="pool1")(x)  # 14 x 14 x 6
    x = layers.Conv2D(16, 5, activation="tanh", name="conv2")(x)  # 10 x 10 x 16
    x = layers.AveragePooling2D(2, name="pool2")(x)  # 5 x 5 x 16
    x = layers.Conv2D(120, 5, activation="tanh", name="conv3")(x)  # 1 x 1 x 120
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(84, activation="tanh", name="dense")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)
