"""Networks for photographs of 224 x 224 pixels (AlexNet: 227) and 1000 classes.

Batch normalisation is folded into the biases, as it is where a network is served.
"""

import onnx

from loadtest.bench.layers import Layers

_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # of ResNet-50: width of a block, blocks
_STAGES_18 = ((64, 2), (128, 2), (256, 2), (512, 2))
_BRANCH_GAIN = 0.5  # without normalisation, the sums of residuals would grow from block to block
_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
# GoogLeNet, table 1 of the paper: 1 x 1; 3 x 3 reduced, 3 x 3; 5 x 5 reduced, 5 x 5; after pooling.
_INCEPTIONS = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
# MobileNetV2, table 2 of the paper: expansion, channels, blocks, stride of the first.
_INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# MobileNet, table 1 of the paper: channels, stride.
_SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# SqueezeNet 1.1: squeezed, expanded (twice), whether a pooling comes first.
_FIRES = (
    (16, 64, True),
    (16, 64, False),
    (32, 128, True),
    (32, 128, False),
    (48, 192, True),
    (48, 192, False),
    (64, 256, False),
    (64, 256, False),
)


def alexnet(*, weights: bool = True) -> onnx.ModelProto:
    """AlexNet as published, in two groups: 0.72 G multiply-adds, 61 M parameters.

    Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks,
    2012. Local response normalisation is left out.
    """
    layers = Layers("alexnet", shape=(227, 227, 3), weights=weights)
    layers.relu_convolution(96, size=11, stride=4)
    layers.pool("MaxPool", size=3, stride=2)
    layers.relu_convolution(256, size=5, padding=2, groups=2)
    layers.pool("MaxPool", size=3, stride=2)
    for channels, groups in ((384, 1), (384, 2), (256, 2)):
        layers.relu_convolution(channels, size=3, padding=1, groups=groups)
    layers.pool("MaxPool", size=3, stride=2)
    _classify(layers, inputs=256 * 6 * 6)
    return layers.classifier()


def vgg16(*, weights: bool = True) -> onnx.ModelProto:
    """VGG-16: 15.5 G multiply-adds, 138 M parameters.

    Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014.
    """
    layers = Layers("vgg16", shape=(224, 224, 3), weights=weights)
    for channels in _VGG16:
        if channels:
            layers.relu_convolution(channels, size=3, padding=1)
        else:
            layers.pool("MaxPool", size=2, stride=2)
    _classify(layers, inputs=512 * 7 * 7)
    return layers.classifier()


def googlenet(*, weights: bool = True) -> onnx.ModelProto:
    """GoogLeNet: 1.58 G multiply-adds (the paper says "about 1.5"), 7 M parameters.

    Szegedy et al.: Going Deeper with Convolutions, 2014; without the auxiliary classifiers.
    """
    layers = Layers("googlenet", shape=(224, 224, 3), weights=weights)
    layers.relu_convolution(64, size=7, stride=2, padding=3)
    layers.pool("MaxPool", size=3, stride=2, padding=1)
    layers.relu_convolution(64, size=1)
    layers.relu_convolution(192, size=3, padding=1)
    layers.pool("MaxPool", size=3, stride=2, padding=1)
    for widths in _INCEPTIONS:
        if widths:
            _inception(layers, widths)
        else:
            layers.pool("MaxPool", size=3, stride=2, padding=1)
    layers.add("GlobalAveragePool")
    layers.add("Flatten")
    layers.dense(1000, inputs=1024)
    return layers.classifier()


def resnet50(*, weights: bool = True, version: str = "1.5") -> onnx.ModelProto:
    """ResNet-50: 4.1 G multiply-adds, 25.5 M parameters.

    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015; strides in the 3 x 3
    convolutions, as frameworks build it today ("v1.5"). Version "1" has them where the paper has
    them, in the first 1 x 1, which makes 3.9 G.
    """
    layers = _stem("resnet50", weights=weights)
    for width, blocks in _STAGES:
        for block in range(blocks):
            stride = 2 if block == 0 and width != 64 else 1
            strides = (stride, 1) if version == "1" else (1, stride)
            _bottleneck(layers, width, strides=strides, projects=block == 0)
    return _top(layers, inputs=2048)


def resnet18(*, weights: bool = True) -> onnx.ModelProto:
    """ResNet-18: 1.8 G multiply-adds, 11.7 M parameters, of the same paper."""
    layers = _stem("resnet18", weights=weights)
    for width, blocks in _STAGES_18:
        for block in range(blocks):
            stride = 2 if block == 0 and width != 64 else 1
            _basic(layers, width, stride=stride)
    return _top(layers, inputs=512)


def mobilenetv2(*, weights: bool = True) -> onnx.ModelProto:
    """MobileNetV2: 0.30 G multiply-adds, 3.5 M parameters.

    Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
    """
    layers = Layers("mobilenetv2", shape=(224, 224, 3), weights=weights)
    layers.relu_convolution(32, size=3, stride=2, padding=1)
    for expansion, channels, blocks, first_stride in _INVERTED:
        for block in range(blocks):
            _inverted(layers, expansion, channels, stride=first_stride if block == 0 else 1)
    layers.relu_convolution(1280, size=1)
    return _top(layers, inputs=1280)


def mobilenetv1(*, weights: bool = True) -> onnx.ModelProto:
    """MobileNet: 0.57 G multiply-adds, 4.2 M parameters.

    Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
    Applications, 2017.
    """
    layers = Layers("mobilenetv1", shape=(224, 224, 3), weights=weights)
    layers.relu_convolution(32, size=3, stride=2, padding=1)
    for channels, stride in _SEPARABLE:
        wide = layers.channels
        layers.relu_convolution(wide, size=3, stride=stride, padding=1, groups=wide)
        layers.relu_convolution(channels, size=1)
    return _top(layers, inputs=1024)


def squeezenet(*, weights: bool = True) -> onnx.ModelProto:
    """SqueezeNet 1.1: 0.35 G multiply-adds, 1.24 M parameters.

    Iandola et al.: SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016.
    """
    layers = Layers("squeezenet", shape=(224, 224, 3), weights=weights)
    layers.relu_convolution(64, size=3, stride=2)
    for squeezed, expanded, pools in _FIRES:
        if pools:
            layers.pool("MaxPool", size=3, stride=2)
        layers.relu_convolution(squeezed, size=1)
        begin = layers.top
        layers.relu_convolution(expanded, size=1)
        one = layers.top
        layers.top, layers.channels = begin, squeezed
        layers.relu_convolution(expanded, size=3, padding=1)
        layers.add("Concat", one, axis=1)
        layers.channels = 2 * expanded
    layers.relu_convolution(1000, size=1)
    layers.add("GlobalAveragePool")
    layers.add("Flatten")
    return layers.classifier()


def _classify(layers: Layers, *, inputs: int) -> None:
    """The three dense layers of AlexNet and VGG."""
    layers.add("Flatten")
    for features in (4096, 4096):
        layers.dense(features, inputs=inputs)
        layers.add("Relu")
        inputs = features
    layers.dense(1000, inputs=inputs)


def _stem(name: str, *, weights: bool) -> Layers:
    layers = Layers(name, shape=(224, 224, 3), weights=weights)
    layers.relu_convolution(64, size=7, stride=2, padding=3)
    layers.pool("MaxPool", size=3, stride=2, padding=1)
    return layers


def _top(layers: Layers, *, inputs: int) -> onnx.ModelProto:
    layers.add("GlobalAveragePool")
    layers.add("Flatten")
    layers.dense(1000, inputs=inputs)
    return layers.classifier()


def _bottleneck(layers: Layers, width: int, *, strides: tuple[int, int], projects: bool) -> None:
    """A residual block: 1 x 1 to `width`, 3 x 3, 1 x 1 to four times that; plus its input."""
    begin, channels = layers.top, layers.channels
    layers.relu_convolution(width, size=1, stride=strides[0])
    layers.relu_convolution(width, size=3, stride=strides[1], padding=1)
    layers.convolution(4 * width, size=1, gain=_BRANCH_GAIN)
    branch = layers.top
    layers.top = begin
    if projects:
        layers.channels = channels
        layers.convolution(4 * width, size=1, stride=max(strides))
    layers.add("Add", branch)
    layers.add("Relu")


def _basic(layers: Layers, width: int, *, stride: int) -> None:
    """A residual block of two 3 x 3 convolutions."""
    begin, channels = layers.top, layers.channels
    layers.relu_convolution(width, size=3, stride=stride, padding=1)
    layers.convolution(width, size=3, padding=1, gain=_BRANCH_GAIN)
    branch = layers.top
    layers.top = begin
    if channels != width:
        layers.channels = channels
        layers.convolution(width, size=1, stride=stride)
    layers.add("Add", branch)
    layers.add("Relu")


def _inverted(layers: Layers, expansion: int, channels: int, *, stride: int) -> None:
    """An inverted residual block: widened by 1 x 1, each channel by itself, narrowed by 1 x 1."""
    begin, before = layers.top, layers.channels
    if expansion != 1:
        layers.relu_convolution(before * expansion, size=1)
    wide = layers.channels
    layers.relu_convolution(wide, size=3, stride=stride, padding=1, groups=wide)
    residual = stride == 1 and before == channels
    layers.convolution(channels, size=1, gain=_BRANCH_GAIN if residual else 1.0)
    if residual:
        layers.add("Add", begin)


def _inception(layers: Layers, widths: tuple[int, int, int, int, int, int]) -> None:
    """Four branches side by side, concatenated."""
    one, reduced3, three, reduced5, five, pooled = widths
    begin, channels, tops = layers.top, layers.channels, []

    def branch(*convolutions: tuple[int, int], pools: bool = False) -> None:
        layers.top, layers.channels = begin, channels
        if pools:
            layers.pool("MaxPool", size=3, stride=1, padding=1)
        for width, size in convolutions:
            layers.relu_convolution(width, size=size, padding=size // 2)
        tops.append(layers.top)

    branch((one, 1))
    branch((reduced3, 1), (three, 3))
    branch((reduced5, 1), (five, 5))
    branch((pooled, 1), pools=True)
    layers.top = tops[0]
    layers.add("Concat", *tops[1:], axis=1)
    layers.channels = one + three + five + pooled
