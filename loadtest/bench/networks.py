"""Networks to measure servers with, made on the spot: real architectures, random weights.

Usage: python -m loadtest.bench.networks FOLDER [NAME ...]; writes what the folder does not hold.
What a pass costs does not depend on what the weights have learned: no benchmark needs a training.
`loadtest.bench.layers` says how the weights are made.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from loadtest.bench import imagenet
from loadtest.bench.layers import SEED, Layers
from ridgeline.cost import ModelCost
from ridgeline.errors import NotFound, RidgelineError
from ridgeline.graph import cost_of
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import MODEL_FILE, ModelCard, publish, scan


def softmax784(*, weights: bool = True) -> onnx.ModelProto:
    """Softmax regression on 28 x 28 pixels, the least of networks: 7,840 multiply-adds."""
    layers = Layers("softmax784", shape=(28, 28, 1), weights=weights)
    layers.add("Flatten")
    layers.dense(10, inputs=784)
    return layers.classifier()


def perceptron(*, weights: bool = True) -> onnx.ModelProto:
    """784 - 300 - 100 - 10, as LeCun et al. (1998) compare LeNet-5 with: 266,200 multiply-adds."""
    return _dense("perceptron", hidden=(300, 100), weights=weights)


def perceptron1000(*, weights: bool = True) -> onnx.ModelProto:
    """784 - 1000 - 10, from the same comparison: 794,000 multiply-adds."""
    return _dense("perceptron1000", hidden=(1000,), weights=weights)


def perceptron500(*, weights: bool = True) -> onnx.ModelProto:
    """784 - 500 - 150 - 10, from the same comparison: 468,500 multiply-adds."""
    return _dense("perceptron500", hidden=(500, 150), weights=weights)


def _dense(name: str, *, hidden: Sequence[int], weights: bool) -> onnx.ModelProto:
    layers = Layers(name, shape=(28, 28, 1), weights=weights)
    layers.add("Flatten")
    for inputs, features in itertools.pairwise((784, *hidden)):
        layers.dense(features, inputs=inputs)
        layers.add("Tanh")
    layers.dense(10, inputs=hidden[-1])
    return layers.classifier()


def lenet1(*, weights: bool = True) -> onnx.ModelProto:
    """LeNet-1 (LeCun et al., 1990): 28 x 28 x 1, 136,320 multiply-adds (layers fully connected)."""
    return _lenet("lenet1", side=28, maps=(4, 12), dense=(), weights=weights)


def lenet4(*, weights: bool = True) -> onnx.ModelProto:
    """LeNet-4 (LeCun et al., 1998): 32 x 32 x 1, 287,600 multiply-adds (layers fully connected)."""
    return _lenet("lenet4", side=32, maps=(4, 16), dense=(120,), weights=weights)


def lenet5(*, weights: bool = True) -> onnx.ModelProto:
    """LeNet-5 as `ridgeline train` builds it: 32 x 32 x 1, 416,520 multiply-adds."""
    return _lenet("lenet5", side=32, maps=(6, 16), dense=(120, 84), weights=weights)


def _lenet(
    name: str, *, side: int, maps: Sequence[int], dense: Sequence[int], weights: bool
) -> onnx.ModelProto:
    """Convolutions of 5 x 5 with pooling between; the first dense layer is a convolution, too."""
    layers = Layers(name, shape=(side, side, 1), weights=weights)
    for channels in maps:
        layers.convolution(channels, size=5)
        layers.add("Tanh")
        layers.pool("AveragePool", size=2, stride=2)
        side = (side - 4) // 2
    features = maps[-1] * side * side
    for place, size in enumerate(dense):
        if place:
            layers.dense(size, inputs=features)
        else:
            layers.convolution(size, size=side)
        layers.add("Tanh")
        if not place:
            layers.add("Flatten")
        features = size
    if not dense:
        layers.add("Flatten")
    layers.dense(10, inputs=features)
    return layers.classifier()


def cnn78(*, weights: bool = True) -> onnx.ModelProto:
    """Six convolutions in the manner of VGG: 32 x 32 x 3, 38,896,896 multiply-adds, 78 MFLOP."""
    layers = Layers("cnn78", shape=(32, 32, 3), weights=weights)
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


@dataclass(frozen=True)
class Network:
    """How to build a network, and the largest batch that servers are told to make of it."""

    build: Callable[[], onnx.ModelProto]
    max_batch_size: int


NETWORKS: Mapping[str, Network] = {
    "softmax784": Network(softmax784, max_batch_size=64),
    "perceptron": Network(perceptron, max_batch_size=64),
    "perceptron500": Network(perceptron500, max_batch_size=64),
    "perceptron1000": Network(perceptron1000, max_batch_size=64),
    "lenet1": Network(lenet1, max_batch_size=64),
    "lenet4": Network(lenet4, max_batch_size=64),
    "lenet5": Network(lenet5, max_batch_size=64),
    "cnn78": Network(cnn78, max_batch_size=64),
    "mobilenetv1": Network(imagenet.mobilenetv1, max_batch_size=16),
    "mobilenetv2": Network(imagenet.mobilenetv2, max_batch_size=16),
    "squeezenet": Network(imagenet.squeezenet, max_batch_size=16),
    "alexnet": Network(imagenet.alexnet, max_batch_size=16),
    "googlenet": Network(imagenet.googlenet, max_batch_size=16),
    "resnet18": Network(imagenet.resnet18, max_batch_size=16),
    "resnet50": Network(imagenet.resnet50, max_batch_size=16),
    "vgg16": Network(imagenet.vgg16, max_batch_size=16),
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
    return ModelCard(cost=cost, training={"weights": "random", "seed": SEED})


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
