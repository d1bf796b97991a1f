"""GoogLeNet: nine Inception modules, each of which looks at four scales at once.

    name             input          multiply-adds  parameters
    googlenet        224 x 224 x 3  1,582,671,872  6,998,552
    googlenet_cifar  32 x 32 x 3    109,268,096    373,306
    inception_small  32 x 32 x 1    1,182,496      11,978

Szegedy, Liu, Jia and others: Going Deeper with Convolutions, 2015 (Inception v1): local response
normalisation, two auxiliary heads that carry the gradient into the middle while training. They are
the outputs `auxiliary1` and `auxiliary2`, and are left out of what is served and counted. The small
ones normalise their batches instead and need no such heads.
"""

from collections.abc import Sequence

import keras
from keras import layers

from training.zoo.response import LocalResponseNormalization

# 1 x 1; 1 x 1 before 3 x 3, 3 x 3; 1 x 1 before 5 x 5, 5 x 5; 1 x 1 after pooling (table 1).
Widths = tuple[int, int, int, int, int, int]
_STAGES: tuple[tuple[Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
_AUXILIARY = {(1, 0): "auxiliary1", (1, 3): "auxiliary2"}  # behind modules 4a and 4d


def build(*, classes: int = 1000) -> keras.Model:
    """`image` [batch, 224, 224, 3] to `probabilities` [batch, classes], and two heads alike."""
    image = keras.Input((224, 224, 3), name="image")
    x = _convolution(image, width=64, kernel=7, stride=2, name="conv1")
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = LocalResponseNormalization(name="norm1")(x)
    x = _convolution(x, width=64, kernel=1, name="conv2_reduce")
    x = _convolution(x, width=192, kernel=3, name="conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    heads = []
    for stage, modules in enumerate(_STAGES):
        x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{stage + 2}")(x)
        for place, widths in enumerate(modules):
            x = _inception(x, widths=widths, name=f"inception{stage + 3}{'abcde'[place]}")
            if name := _AUXILIARY.get((stage, place)):
                heads.append(_auxiliary(x, classes=classes, name=name))
    x = layers.GlobalAveragePooling2D(name="pool5")(x)
    x = layers.Dropout(0.4, name="dropout")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, [probabilities, *heads])


def build_small(
    *,
    stages: Sequence[Sequence[Widths]],
    stem: int,
    stride: int = 1,
    channels: int = 3,
    classes: int = 10,
) -> keras.Model:
    """`image` [batch, 32, 32, channels] to `probabilities` [batch, classes].

    Stages are pooled apart.
    """
    image = keras.Input((32, 32, channels), name="image")
    x = _convolution(image, width=stem, kernel=3, stride=stride, name="conv1", normalised=True)
    for stage, modules in enumerate(stages, start=1):
        if stage > 1:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{stage}")(x)
        for place, widths in enumerate(modules, start=1):
            name = f"inception{stage}_{place}"
            x = _inception(x, widths=widths, name=name, normalised=True)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)


def _convolution(
    x: keras.KerasTensor,
    *,
    width: int,
    kernel: int,
    name: str,
    stride: int = 1,
    normalised: bool = False,
) -> keras.KerasTensor:
    convolution = layers.Conv2D(
        width, kernel, stride, padding="same", use_bias=not normalised, name=name
    )
    x = convolution(x)
    if normalised:
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _inception(
    x: keras.KerasTensor, *, widths: Widths, name: str, normalised: bool = False
) -> keras.KerasTensor:
    one, three_before, three, five_before, five, pooled = widths

    def convolution(x: keras.KerasTensor, width: int, kernel: int, part: str) -> keras.KerasTensor:
        part = f"{name}_{part}"
        return _convolution(x, width=width, kernel=kernel, name=part, normalised=normalised)

    branches = [
        convolution(x, one, 1, "1x1"),
        convolution(convolution(x, three_before, 1, "3x3_reduce"), three, 3, "3x3"),
        convolution(convolution(x, five_before, 1, "5x5_reduce"), five, 5, "5x5"),
        convolution(
            layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x), pooled, 1, "after"
        ),
    ]
    return layers.Concatenate(name=name)(branches)


def _auxiliary(x: keras.KerasTensor, *, classes: int, name: str) -> keras.KerasTensor:
    x = layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
    x = _convolution(x, width=128, kernel=1, name=f"{name}_conv")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(1024, activation="relu", name=f"{name}_dense")(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return layers.Dense(classes, activation="softmax", name=name)(x)
