"""The networks of `keras.applications`, by their name there.

    name          input          multiply-adds  parameters
    mobilenet_v2  224 x 224 x 3  300,774,272    3,504,872

`keras.<Name>` builds any of them: `keras.MobileNetV3Small`, `keras.DenseNet121` and so on. Sandler,
Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
"""

import keras
from keras import layers

from ridgeline.errors import NotFound


def build(*, architecture: str, weights: str | None = None, classes: int = 1000) -> keras.Model:
    """The network: `image` at its usual size to `probabilities` [batch, classes].

    `weights` None leaves them random, "imagenet" downloads them where there is a network. Values of
    `image` are those that the network's `preprocess_input` gives. Raises NotFound.
    """
    constructor = getattr(keras.applications, architecture, None)
    if not callable(constructor):
        known = [name for name in dir(keras.applications) if name[0].isupper()]
        raise NotFound(
            f"keras.applications has no {architecture!r}; it has {', '.join(sorted(known))}"
        )
    network = constructor(weights=weights, classes=classes)
    image = keras.Input(network.input_shape[1:], name="image")
    return keras.Model(image, layers.Identity(name="probabilities")(network(image)))
