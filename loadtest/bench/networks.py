"""Networks to measure servers with, made on the spot: real architectures, random weights.

Usage: python -m loadtest.bench.networks FOLDER [NAME ...]; writes what the folder does not hold.
What a pass costs does not depend on what the weights have learned: no benchmark needs a training.
Weights are normal with the variance 2 / fan-in of He et al. (2015), from a fixed seed; float32,
batch axis free, images as [batch, height, width, channels].
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ridgeline.cost import ModelCost
from ridgeline.errors import NotFound, RidgelineError
from ridgeline.graph import cost_of
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import MODEL_FILE, ModelCard, publish, scan

INPUT, OUTPUT = "image", "probabilities"
_SEED = 20_150_206  # the day on which the paper about such weights appeared
_OPSET, _IR_VERSION = 18, 8
_RESNET50_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width of a block, blocks
_BRANCH_GAIN = 0.5  # without normalisation, the sums of residuals would grow from block to block


class _Layers:
    """A graph that grows layer by layer, NCHW inside; `top` is the tensor that came out last."""

    def __init__(self, name: str, *, shape: tuple[int, int, int]) -> None:
        self._name, self._shape = name, shape
        self._random = np.random.default_rng(_SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.top, self._channels = INPUT, shape[2]
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
        self, channels: int, *, size: int, stride: int = 1, padding: int = 0, gain: float = 1.0
    ) -> None:
        """A square convolution with a bias, as normalisation leaves when it is folded away."""
        weights = self._he((channels, self._channels, size, size), gain=gain)
        bias = self._weight(np.zeros(channels))
        self.add("Conv", weights, bias, strides=(stride,) * 2, pads=(padding,) * 4)
        self._channels = channels

    def dense(self, features: int, *, inputs: int) -> None:
        """A dense layer; its input must be flat."""
        weights = self._he((features, inputs))
        self.add("Gemm", weights, self._weight(np.zeros(features)), transB=1)

    def pool(self, operator: str, *, size: int, stride: int, padding: int = 0) -> None:
        """MaxPool or AveragePool over squares."""
        pads = (padding,) * 4
        self.add(operator, kernel_shape=(size,) * 2, strides=(stride,) * 2, pads=pads)

    def bottleneck(self, width: int, *, stride: int, projects: bool) -> None:
        """A residual block: 1 x 1 to `width`, 3 x 3, 1 x 1 to four times that; plus its input."""
        begin, channels = self.top, self._channels
        self.convolution(width, size=1)
        self.add("Relu")
        self.convolution(width, size=3, stride=stride, padding=1)
        self.add("Relu")
        self.convolution(4 * width, size=1, gain=_BRANCH_GAIN)
        branch = self.top
        self.top = begin
        if projects:
            self._channels = channels
            self.convolution(4 * width, size=1, stride=stride)
        self.add("Add", branch)
        self.add("Relu")

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
        onnx.checker.check_model(model)
        return model

    def _he(self, shape: tuple[int, ...], *, gain: float = 1.0) -> str:
        deviation = gain * np.sqrt(2 / np.prod(shape[1:]))
        return self._weight(self._random.normal(scale=deviation, size=shape))

    def _weight(self, array: np.ndarray) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name


def lenet5() -> onnx.ModelProto:
    """LeNet-5 as `ridgeline train` builds it: 32 x 32 x 1, 416,520 multiply-adds."""
    layers = _Layers("lenet5", shape=(32, 32, 1))
    for channels in (6, 16):
        layers.convolution(channels, size=5)
        layers.add("Tanh")
        layers.pool("AveragePool", size=2, stride=2)
    layers.convolution(120, size=5)
    layers.add("Tanh")
    layers.add("Flatten")
    layers.dense(84, inputs=120)
    layers.add("Tanh")
    layers.dense(10, inputs=84)
    return layers.classifier()


def cnn78() -> onnx.ModelProto:
    """Six convolutions in the manner of VGG: 32 x 32 x 3, 38,896,896 multiply-adds, 78 MFLOP."""
    layers = _Layers("cnn78", shape=(32, 32, 3))
    for channels in (32, 64, 128):
        for _ in range(2):
            layers.convolution(channels, size=3, padding=1)
            layers.add("Relu")
        layers.pool("MaxPool", size=2, stride=2)
    layers.add("Flatten")
    layers.dense(128, inputs=128 * 4 * 4)
    layers.add("Relu")
    layers.dense(10, inputs=128)
    return layers.classifier()


def resnet50() -> onnx.ModelProto:
    """ResNet-50: 224 x 224 x 3, 4.1 G multiply-adds, 25.5 M parameters.

    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015; strides in the 3 x 3
    convolutions, as frameworks build it today ("v1.5"), and batch normalisation folded into biases.
    """
    layers = _Layers("resnet50", shape=(224, 224, 3))
    layers.convolution(64, size=7, stride=2, padding=3)
    layers.add("Relu")
    layers.pool("MaxPool", size=3, stride=2, padding=1)
    for width, blocks in _RESNET50_STAGES:
        for block in range(blocks):
            first = block == 0
            stride = 2 if first and width != _RESNET50_STAGES[0][0] else 1
            layers.bottleneck(width, stride=stride, projects=first)
    layers.add("GlobalAveragePool")
    layers.add("Flatten")
    layers.dense(1000, inputs=2048)
    return layers.classifier()


@dataclass(frozen=True)
class Network:
    """How to build a network, and the largest batch that servers are told to make of it."""

    build: Callable[[], onnx.ModelProto]
    max_batch_size: int


NETWORKS: Mapping[str, Network] = {
    "lenet5": Network(lenet5, max_batch_size=64),
    "cnn78": Network(cnn78, max_batch_size=64),
    "resnet50": Network(resnet50, max_batch_size=16),
}


def write(names: Sequence[str], *, root: Path) -> list[Path]:
    """Publish the networks that the repository at `root` lacks; returns their version folders.

    Raises NotFound, with nothing written, where a name is unknown.
    """
    if unknown := [name for name in names if name not in NETWORKS]:
        raise NotFound(f"there is no network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    present = {model.name for model in scan(root) if model.versions} if root.exists() else set()
    return [_publish(name, root=root) for name in names if name not in present]


def _publish(name: str, *, root: Path) -> Path:
    network = NETWORKS[name]
    model = network.build()
    cost = cost_of(model, batches=True)
    config = config_of(_spec(model, network=network))
    for key, value in cost.to_parameters().items():
        config.parameters[key].string_value = value
    files = {MODEL_FILE: model.SerializeToString()}
    return publish(files, config=config, card=_card(cost), labels={}, root=root)


def _spec(model: onnx.ModelProto, *, network: Network) -> ModelSpec:
    inputs, outputs = (
        tuple(
            TensorSpec(
                tensor.name,
                "FP32",
                tuple(size.dim_value for size in tensor.type.tensor_type.shape.dim[1:]),
            )
            for tensor in tensors
        )
        for tensors in (model.graph.input, model.graph.output)
    )
    return ModelSpec(model.graph.name, network.max_batch_size, inputs, outputs)


def _card(cost: ModelCost) -> ModelCard:
    return ModelCard(cost=cost, training={"weights": "random", "seed": _SEED})


def main() -> int:
    """Write the networks named on the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench.networks", description="Write networks with random weights."
    )
    parser.add_argument("root", type=Path, metavar="FOLDER", help="the model repository")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all")
    arguments = parser.parse_args()
    try:
        for directory in write(arguments.names or list(NETWORKS), root=arguments.root):
            print(directory)
    except RidgelineError as error:
        print(f"networks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
