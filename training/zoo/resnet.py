"""ResNet: blocks that add what they compute to what they were given.

    name          input          multiply-adds  parameters
    resnet50      224 x 224 x 3  3,857,973,248  25,557,032
    resnet18      224 x 224 x 3  1,814,073,344  11,689,512
    resnet56      32 x 32 x 3    125,747,840    855,770
    resnet20      32 x 32 x 3    40,813,184     272,474
    resnet_small  32 x 32 x 1    6,937,536      174,226

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2016: table 1 (18 and 50) and
section 4.2 (20 and 56, for CIFAR-10). The strides of resnet50 stand in its 1 x 1 convolutions, as
in the paper. Shortcuts that change the width are projections (the paper's option B), in the CIFAR
networks too, where the paper pads with zeros (option A, no parameters). The small one is of their
kind, with a stem that halves the sides.
"""

from collections.abc import Sequence

import keras
from keras import layers


def build(
    *,
    blocks: Sequence[int],
    widths: Sequence[int],
    stem: tuple[int, int],
    pooled: bool = False,
    bottleneck: bool = False,
    size: int = 224,
    channels: int = 3,
    classes: int = 1000,
) -> keras.Model:
    """The network: `image` [batch, size, size, channels] to `probabilities` [batch, classes].

    Each stage has as many `blocks` of its width; all but the first halve the sides. `stem` is
    kernel and stride of the first convolution, `pooled` puts a pooling behind it.
    """
    image = keras.Input((size, size, channels), name="image")
    x = _convolution(image, width=widths[0], kernel=stem[0], stride=stem[1], name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    if pooled:
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    block = _bottleneck if bottleneck else _basic
    for stage, (depth, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for place in range(1, depth + 1):
            stride = 2 if stage > 1 and place == 1 else 1
            x = block(x, width=width, stride=stride, name=f"stage{stage}_{place}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)


def _convolution(
    x: keras.KerasTensor, *, width: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    """A convolution without bias, and the normalisation that has one."""
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def _basic(x: keras.KerasTensor, *, width: int, stride: int, name: str) -> keras.KerasTensor:
    y = _convolution(x, width=width, kernel=3, stride=stride, name=f"{name}_a")
    y = layers.ReLU(name=f"{name}_a_relu")(y)
    y = _convolution(y, width=width, kernel=3, stride=1, name=f"{name}_b")
    return _joined(x, y, stride=stride, name=name)


def _bottleneck(x: keras.KerasTensor, *, width: int, stride: int, name: str) -> keras.KerasTensor:
    y = _convolution(x, width=width, kernel=1, stride=stride, name=f"{name}_a")
    y = layers.ReLU(name=f"{name}_a_relu")(y)
    y = _convolution(y, width=width, kernel=3, stride=1, name=f"{name}_b")
    y = layers.ReLU(name=f"{name}_b_relu")(y)
    y = _convolution(y, width=4 * width, kernel=1, stride=1, name=f"{name}_c")
    return _joined(x, y, stride=stride, name=name)


def _joined(
    x: keras.KerasTensor, y: keras.KerasTensor, *, stride: int, name: str
) -> keras.KerasTensor:
    """The sum; a projection fits what was given to what was computed, where they differ."""
    if x.shape != y.shape:
        x = _convolution(x, width=y.shape[-1], kernel=1, stride=stride, name=f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_sum")([x, y]))
