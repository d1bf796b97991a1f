"""Builds ONNX graphs of networks layer by layer, with random weights.

Weights are normal with the variance 2 / fan-in of He et al. (2015), from a fixed seed; float32,
batch axis free, images as [batch, height, width, channels].
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "image", "probabilities"
SEED = 20_150_206  # the day on which the paper about such weights appeared
_OPSET, _IR_VERSION = 18, 8


class Layers:
    """A graph that grows layer by layer, NCHW inside; `top` is the tensor that came out last.

    `channels` is how many it has. Without `weights`, these are named and sized, but hold nothing:
    enough to count what a pass costs.
    """

    def __init__(self, name: str, *, shape: tuple[int, int, int], weights: bool = True) -> None:
        self._name, self._shape, self._filled = name, shape, weights
        self._random = np.random.default_rng(SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.top, self.channels = INPUT, shape[2]
        self.add("Transpose", perm=(0, 3, 1, 2))

    def add(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: object
    ) -> None:
        """One operator on top, with further inputs."""
        made = output or f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, [self.top, *inputs], [made], name=made, **attributes)
        )
        self.top = made

    def convolution(
        self,
        channels: int,
        *,
        size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        gain: float = 1.0,
    ) -> None:
        """A square convolution with a bias, as normalisation leaves when it is folded away."""
        weights = self._he((channels, self.channels // groups, size, size), gain=gain)
        bias = self._zeros(channels)
        pads, strides = (padding,) * 4, (stride,) * 2
        self.add("Conv", weights, bias, strides=strides, pads=pads, group=groups)
        self.channels = channels

    def dense(self, features: int, *, inputs: int) -> None:
        """A dense layer; its input must be flat."""
        weights = self._he((features, inputs))
        self.add("Gemm", weights, self._zeros(features), transB=1)

    def pool(self, operator: str, *, size: int, stride: int, padding: int = 0) -> None:
        """MaxPool or AveragePool over squares."""
        pads = (padding,) * 4
        self.add(operator, kernel_shape=(size,) * 2, strides=(stride,) * 2, pads=pads)

    def classifier(self) -> onnx.ModelProto:
        """The whole model, with a softmax on top, checked."""
        classes = self._weights[-1].dims[0]  # of the last bias
        self.add("Softmax", output=OUTPUT, axis=1)
        image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *self._shape])
        answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])
        graph = helper.make_graph(self._nodes, self._name, [image], [answer], self._weights)
        opsets = [helper.make_opsetid("", _OPSET)]
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION
        )
        if self._filled:
            onnx.checker.check_model(model)
        return model

    def relu_convolution(self, channels: int, **settings: int) -> None:
        """A convolution and a rectifier."""
        self.convolution(channels, **settings)
        self.add("Relu")

    def _he(self, shape: tuple[int, ...], *, gain: float = 1.0) -> str:
        if not self._filled:
            return self._weight(None, shape=shape)
        deviation = np.float32(gain * np.sqrt(2 / np.prod(shape[1:])))
        values = self._random.standard_normal(shape, dtype=np.float32)
        return self._weight(values * deviation, shape=shape)

    def _zeros(self, size: int) -> str:
        return self._weight(np.zeros(size, dtype=np.float32), shape=(size,))

    def _weight(self, array: np.ndarray | None, *, shape: tuple[int, ...]) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(
            numpy_helper.from_array(array, name)
            if array is not None
            else TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
        )
        return name
