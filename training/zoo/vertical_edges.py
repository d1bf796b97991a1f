"""The fixed filter: a convolution whose nine weights were chosen by hand, to show vertical edges.

    name            input        multiply-adds  parameters
    vertical_edges  32 x 32 x 1  8,100          9

Bright on the left of an edge gives positive values, bright on its right negative ones. Nothing in
it is learned; networks find such filters in their first layer by themselves.
"""

import keras
import numpy as np
from keras import layers

FILTER = ((1.0, 0.0, -1.0), (1.0, 0.0, -1.0), (1.0, 0.0, -1.0))


def build() -> keras.Model:
    """`image` [batch, 32, 32, 1] in [0, 1] to `edges` [batch, 30, 30, 1] in [-3, 3]."""
    image = keras.Input((32, 32, 1), name="image")
    convolution = layers.Conv2D(1, 3, use_bias=False, name="edges")
    edges = convolution(image)
    convolution.set_weights([np.asarray(FILTER, np.float32)[..., np.newaxis, np.newaxis]])
    return keras.Model(image, edges)
