"""VGG: blocks of 3 x 3 convolutions, each followed by a pooling that halves the sides.

    name       input          multiply-adds   parameters
    vgg16      224 x 224 x 3  15,470,264,320  138,357,544
    vgg11      224 x 224 x 3  7,609,090,048   132,863,336
    vgg_cifar  32 x 32 x 3    39,160,320      814,570
    vgg_small  32 x 32 x 1    9,716,992       204,506

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015
(columns A and D). The small ones normalise their batches and have one narrow dense layer, as
later practice does; dropout stands before the dense layers as in the original.
"""

from collections.abc import Sequence

import keras
from keras import layers


def build(
    *,
    blocks: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    dense: Sequence[int] = (4096, 4096),
    size: int = 224,
    channels: int = 3,
    classes: int = 1000,
    normalised: bool = False,
) -> keras.Model:
    """The network: `image` [batch, size, size, channels] to `probabilities` [batch, classes].

    `blocks` are the numbers of convolutions before each pooling, `widths` their maps.
    """
    image = keras.Input((size, size, channels), name="image")
    x = image
    for block, (depth, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for place in range(1, depth + 1):
            name = f"conv{block}_{place}"
            x = layers.Conv2D(width, 3, padding="same", use_bias=not normalised, name=name)(x)
            if normalised:
                x = layers.BatchNormalization(name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    for place, width in enumerate(dense, start=1):
        x = layers.Dropout(0.5, name=f"dropout{place}")(x)
        x = layers.Dense(width, activation="relu", name=f"dense{place}")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)
