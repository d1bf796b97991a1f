"""U-Net: a network that answers for every pixel; what it saw on the way down helps on the way up.

    name  input        multiply-adds  parameters
    unet  48 x 48 x 1  35,647,488     266,395

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015;
with padded convolutions, so that the answer has the input's size, normalised batches, residual
convolutions, transposed ones on the way up, and widths for small pictures.
"""

import keras
from keras import layers

_WIDTHS = (8, 24, 48, 96)


def build(*, size: int = 48, classes: int = 11) -> keras.Model:
    """`image` [batch, size, size, 1] to `logits` [batch, size, size, classes]; 0 is nothing."""
    image = keras.Input((size, size, 1), name="image")
    x, passed = image, []
    for level, width in enumerate(_WIDTHS, start=1):
        x = _convolutions(x, width=width, count=1 if level == 1 else 2, name=f"down{level}")
        if level < len(_WIDTHS):
            passed.append(x)
            x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    for level in range(len(_WIDTHS) - 1, 0, -1):
        width = _WIDTHS[level - 1]
        x = layers.Conv2DTranspose(width, 2, 2, name=f"rise{level}")(x)
        x = layers.Concatenate(name=f"join{level}")([x, passed.pop()])
        x = _convolutions(x, width=width, count=1 if level == 1 else 2, name=f"up{level}")
    return keras.Model(image, layers.Conv2D(classes, 1, name="logits")(x))


def _convolutions(x: keras.KerasTensor, *, width: int, count: int, name: str) -> keras.KerasTensor:
    for place in range(1, count + 1):
        conv = f"{name}_{place}"
        y = layers.Conv2D(width, 3, padding="same", use_bias=False, name=conv)(x)
        y = layers.BatchNormalization(name=f"{conv}_norm")(y)
        if y.shape == x.shape:
            y = layers.Add(name=f"{conv}_sum")([x, y])
        x = layers.ReLU(name=f"{conv}_relu")(y)
    return x
