"""EfficientNet-Lite0: inverted bottlenecks without attention over maps, for devices that lack it.

    name                input          multiply-adds  parameters
    efficientnet_lite0  224 x 224 x 3  385,187,552    4,652,008

Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019; the Lite
variants leave out squeeze and excitation and bound ReLU at 6. Layers carry the names of the
published weights, less the underscore in front, so that `training.pretrained` finds them.
"""

import keras
from keras import layers

# expansion, maps, kernel, stride, repetitions
_STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)


def build(*, classes: int = 1000) -> keras.Model:
    """The network: `image` [batch, 224, 224, 3] in [-1, 1] to `probabilities` [batch, classes]."""
    image = keras.Input((224, 224, 3), name="image")
    stem = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="conv_stem")
    x = _normalised(stem(image), name="bn0")
    block = 0
    for expansion, maps, kernel, stride, repetitions in _STAGES:
        for place in range(repetitions):
            x = _bottleneck(
                x,
                expansion=expansion,
                maps=maps,
                kernel=kernel,
                stride=stride if place == 0 else 1,
                name=f"blocks.{block}.",
            )
            block += 1
    x = layers.Conv2D(1280, 1, use_bias=False, name="conv_head")(x)
    x = _normalised(x, name="bn1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(image, probabilities)


def _normalised(x: keras.KerasTensor, *, name: str, activated: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activated else x


def _bottleneck(
    x: keras.KerasTensor, *, expansion: int, maps: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    y, before = x, x.shape[-1]
    if expansion > 1:
        y = layers.Conv2D(expansion * before, 1, use_bias=False, name=f"{name}_expand_conv")(y)
        y = _normalised(y, name=f"{name}_bn0")
    depthwise = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    y = _normalised(depthwise(y), name=f"{name}_bn1")
    y = layers.Conv2D(maps, 1, use_bias=False, name=f"{name}_project_conv")(y)
    y = _normalised(y, name=f"{name}_bn2", activated=False)
    return layers.Add(name=f"{name}_sum")([x, y]) if stride == 1 and before == maps else y
