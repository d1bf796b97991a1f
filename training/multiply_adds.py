"""What a pass through a Keras network costs, layer by layer, before anything is exported.

The same count as `ridgeline.graph` makes from ONNX: convolutions, dense and recurrent layers,
attention; one multiply-add is two floating-point operations. Training shows its speed with it.
"""

import math
from collections.abc import Sequence

import keras
from keras import layers

FORWARD_AND_BACKWARD = 3  # a step also computes the gradients of inputs and weights, each as dear


def of(network: keras.Model, /) -> int:
    """Multiply-adds of one sample; free axes other than the batch's are not allowed."""
    return sum(_of_layer(layer) for layer in network.layers)


def learned(network: keras.Model, /) -> int:
    """The number of weights that training changes; moving averages of batches are none."""
    return sum(_size(weight.shape) for weight in network.trainable_weights)


def _of_layer(layer: keras.Layer) -> int:
    if isinstance(layer, keras.Model):
        return of(layer)
    if isinstance(layer, layers.Conv2DTranspose):
        return _size(layer.input.shape[1:-1]) * _size(layer.kernel.shape)
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
        return _size(layer.output.shape[1:-1]) * _size(layer.kernel.shape)
    if isinstance(layer, layers.Bidirectional):
        both = _of_step(layer.forward_layer) + _of_step(layer.backward_layer)
        return _size(layer.input.shape[1:2]) * both
    if isinstance(layer, layers.RNN):
        return _size(layer.input.shape[1:2]) * _of_step(layer)
    if isinstance(layer, layers.MultiHeadAttention):
        return _of_self_attention(layer)
    if isinstance(layer, layers.Dot):
        first, axis = layer.input[0].shape[1:], layer.axes  # along which the products are added up
        return _size(first) * _size(layer.output.shape[2:] if len(first) > 1 and axis else (1,))
    if isinstance(layer, layers.Attention):
        query, value = (tensor.shape for tensor in layer.input)
        return 2 * _size((query[1], *value[1:]))  # weighing, and adding up what was weighed
    return 0


def _of_step(layer: keras.layers.RNN) -> int:
    return _size(layer.cell.kernel.shape) + _size(layer.cell.recurrent_kernel.shape)


def _of_self_attention(layer: keras.layers.MultiHeadAttention) -> int:
    """Four projections of every place, and every place weighed with every other, twice."""
    places: int = layer.output.shape[1]
    kernels = [weight.shape for weight in layer.trainable_weights if len(weight.shape) == 3]
    between = _size((places, places, layer.num_heads, layer.key_dim))
    return places * sum(map(_size, kernels)) + 2 * between


def _size(shape: Sequence[int]) -> int:
    return math.prod(shape)
