"""The single-shot detector: every cell of a grid says whether an object's centre lies in it.

    name      input        multiply-adds  parameters
    detector  48 x 48 x 1  6,900,480      110,239

Liu, Anguelov, Erhan and others: SSD: Single Shot MultiBox Detector, 2016, and Redmon, Divvala,
Girshick, Farhadi: You Only Look Once, 2016; with one box for each cell and no anchors, since digits
differ little in form.
"""

import keras
from keras import layers

CELL = 8  # pixels; the strides of the trunk multiply to it
_TRUNK = ((16, 5, 2), (16, 3, 1), (32, 3, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1), (64, 3, 1))


def build(*, size: int = 48, classes: int = 10) -> keras.Model:
    """`image` [batch, size, size, 1] to `cells` [batch, size / 8, size / 8, 5 + classes].

    A cell holds logits: 1 of an object, 4 of its box, one for each class. The box's logits become,
    by a sigmoid, the centre's place in the cell (down, right), and height and width as shares of
    the image.
    """
    image = keras.Input((size, size, 1), name="image")
    x = image
    for place, (width, kernel, stride) in enumerate(_TRUNK, start=1):
        name = f"conv{place}"
        y = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=name)(x)
        y = layers.BatchNormalization(name=f"{name}_norm")(y)
        if y.shape == x.shape:
            y = layers.Add(name=f"{name}_sum")([x, y])
        x = layers.ReLU(name=f"{name}_relu")(y)
    return keras.Model(image, layers.Conv2D(5 + classes, 1, name="cells")(x))
