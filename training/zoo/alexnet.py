"""AlexNet: five convolutions, three of them in two groups that do not see each other.

    name           input          multiply-adds  parameters
    alexnet        227 x 227 x 3  724,406,816    60,965,224
    alexnet_cifar  32 x 32 x 3    53,197,824     1,463,690

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks,
2012. The groups lay on two GPUs there; here they are two convolutions over halves of the maps,
which every runtime can run. The small one keeps the plan at sizes for CIFAR-10.
"""

import keras
from keras import layers

from training.zoo.response import LocalResponseNormalization


def build(*, small: bool = False, classes: int = 1000) -> keras.Model:
    """The network: `image` [batch, side, side, 3] to `probabilities` [batch, classes]."""
    size, first, stride, edge = (32, 5, 1, "same") if small else (227, 11, 4, "valid")
    widths, dense = ((64, 128, 192, 192, 128), 512) if small else ((96, 256, 384, 384, 256), 4096)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(widths[0], first, stride, padding=edge, activation="relu", name="conv1")(
        image
    )
    x = LocalResponseNormalization(name="norm1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = _in_two_groups(x, width=widths[1], kernel=5, name="conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = layers.Conv2D(widths[2], 3, padding="same", activation="relu", name="conv3")(x)
    x = _in_two_groups(x, width=widths[3], kernel=3, name="conv4")
    x = _in_two_groups(x, width=widths[4], kernel=3, name="conv5")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = layers.Flatten(name="flatten")(x)
    for place in (6, 7):
        x = layers.Dense(dense, activation="relu", name=f"dense{place}")(x)
        x = layers.Dropout(0.5, name=f"dropout{place}")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)


def _in_two_groups(
    x: keras.KerasTensor, *, width: int, kernel: int, name: str
) -> keras.KerasTensor:
    """A convolution in two groups. Keras' own (`groups=2`) has no form that tf2onnx can convert."""
    half = x.shape[-1] // 2
    groups = [
        layers.Conv2D(width // 2, kernel, padding="same", activation="relu", name=f"{name}{group}")(
            maps
        )
        for group, maps in (("a", x[..., :half]), ("b", x[..., half:]))
    ]
    return layers.Concatenate(name=name)(groups)
