"""A graph at a lower precision, held to what the full one can do.

int8: weights per channel and activations per tensor become 8-bit numbers with scales (QDQ, static),
the scales of activations from samples that were neither trained on nor tested with. fp16: numbers
of half the size inside, inputs and outputs as before. Both are ONNX Runtime's own tools.
"""

import graphlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.weights import names_read
from ridgeline.errors import InvalidInput, NotFound, Unsupported

INT8, FP16 = "int8", "fp16"
NAMES = (INT8, FP16)
LEAST_SHARE = 0.99  # of the full graph's accuracy, as MLPerf Inference asks
_CALIBRATION_BATCH = 32
# Of weights: processors with AVX2 or AVX-512 but no VNNI add two products in 16 bits, which 8 bits
# each would exceed; the same model must answer the same on all of them.
_SEVEN_BITS = True
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOVES = ("Gather", "MaxPool", "Relu", "Reshape", "Transpose")  # change no number but negative ones


def make(
    model: onnx.ModelProto, *, variant: str, calibration: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """The graph at the precision `variant`, one of NAMES.

    Raises NotFound where int8 has no samples to take its scales from, Unsupported where ONNX
    Runtime's tools cannot do it.
    """
    if variant not in NAMES:
        raise InvalidInput(f"a variant must be one of {', '.join(NAMES)}, received {variant!r}")
    if variant == INT8 and not calibration:
        raise NotFound(
            "int8 needs the artifact's calibration.npz, samples set apart while training; older "
            "artifacts and networks that were not trained here have none"
        )
    try:
        return _half(model) if variant == FP16 else _quantised(model, calibration=calibration)
    except Exception as error:  # the tools raise whatever comes
        raise Unsupported(f"{model.graph.name!r} cannot be turned into {variant}: {error}") from (
            error
        )


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # it is changed in place
    half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    _sort(half.graph)
    return half


def _quantised(model: onnx.ModelProto, *, calibration: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, output = (str(Path(folder) / f"{n}.onnx") for n in ("a", "b", "c"))
        onnx.save(model, plain)
        # Shape inference by symbols needs sympy, and brings nothing where shapes are known.
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        named = onnx.load(prepared)
        for place, node in enumerate(named.graph.node):
            node.name = node.name or f"{node.op_type}:{place}"  # what is left out is named
        onnx.save(named, prepared)
        behind = behind_products(named.graph)
        quantize_static(
            prepared,
            output,
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=_SEVEN_BITS,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=operators(named.graph, behind=set(behind)),
            nodes_to_exclude=behind,
        )
        quantised = onnx.load(output)
    keep_results(quantised.graph, read_by=set(behind))
    quantised.graph.name = model.graph.name
    return quantised


def behind_products(graph: onnx.GraphProto, /) -> list[str]:
    """The nodes that no convolution or matrix product needs, by name.

    What makes probabilities, boxes or words of the last one costs little, and needs more than 256
    steps: places of boxes are shares of the whole image.
    """
    needed: set[str] = set()
    behind = []
    for node in reversed(graph.node):
        if node.op_type in _PRODUCTS or needed & set(node.output):
            needed |= names_read(onnx.GraphProto(node=[node]))
        else:
            behind.append(node.name)
    return behind


def operators(graph: onnx.GraphProto, /, *, behind: set[str]) -> list[str] | None:
    """The kinds of operators to round; None for all that the tool knows.

    Attention has sums that hide words behind numbers far below all others: of 256 steps between
    them and the rest, one would be left for that. There, products alone are rounded.
    """
    attends = any(node.op_type == "Softmax" and node.name not in behind for node in graph.node)
    return [*sorted(_PRODUCTS), *_MOVES] if attends else None


def keep_results(graph: onnx.GraphProto, /, *, read_by: set[str]) -> None:
    """Let these nodes read what products gave, as it was before it was rounded to 256 steps.

    The tool rounds the result of every product, that of the last one, too: of logits between -20
    and 10 each step is an eighth of a nat.
    """
    makers = {name: node for node in graph.node for name in node.output}
    others = [node for node in graph.node if node.name not in read_by]
    needed = names_read(onnx.GraphProto(node=others)) | {tensor.name for tensor in graph.output}
    rounded = {}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker and maker.op_type == "QuantizeLinear" and node.output[0] not in needed:
            rounded[node.output[0]] = maker.input[0]
    for node in graph.node:
        node.input[:] = [rounded.get(name, name) for name in node.input]
    _drop_unread(graph)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take out the nodes, and then the constants, whose results nobody reads."""
    while True:
        read = names_read(graph) | {tensor.name for tensor in graph.output}
        kept = [node for node in graph.node if read & set(node.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that make what it reads: the converter appends its casts."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output}
    order = graphlib.TopologicalSorter(
        {
            place: {makers[name] for name in names_read(onnx.GraphProto(node=[node])) & set(makers)}
            for place, node in enumerate(graph.node)
        }
    )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[place] for place in order.static_order())


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """Hands the samples to the calibration, batch by batch."""

    def __init__(self, samples: Mapping[str, np.ndarray]) -> None:
        self._left = _batches(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None behind the last."""
        return next(self._left, None)


def _batches(samples: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for first in range(0, len(next(iter(samples.values()))), _CALIBRATION_BATCH):
        end = first + _CALIBRATION_BATCH
        yield {name: array[first:end] for name, array in samples.items()}
