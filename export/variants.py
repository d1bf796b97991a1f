"""A graph at a lower precision, held to what the full one can do.

int8: weights per channel and activations per tensor become 8-bit numbers with scales (QDQ, static),
the scales of activations from samples that were neither trained on nor tested with. fp16: numbers
of half the size inside, inputs and outputs as before. Both are ONNX Runtime's own tools.
"""

import graphlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

from export.parity import Accuracy, Run
from export.weights import names_read
from ridgeline.errors import InvalidInput, NotFound, TargetMissed

INT8, FP16 = "int8", "fp16"
NAMES = (INT8, FP16)
LEAST_SHARE = 0.99  # of the full graph's accuracy, as MLPerf Inference asks
_CALIBRATION_BATCH = 32
_TURNS = 30


def make(
    model: onnx.ModelProto, *, variant: str, calibration: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """The graph at the precision `variant`, one of NAMES.

    Raises NotFound where int8 has no samples to take its scales from.
    """
    if variant == FP16:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)  # it is changed in place
        half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
        _sort(half.graph)
        return half
    if variant != INT8:
        raise InvalidInput(f"a variant must be one of {', '.join(NAMES)}, received {variant!r}")
    if not calibration:
        raise NotFound("int8 needs the artifact's calibration.npz; train the model again")
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, output = (str(Path(folder) / f"{n}.onnx") for n in ("a", "b", "c"))
        onnx.save(model, plain)
        # Shape inference by symbols needs sympy, and brings nothing where shapes are known.
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            output,
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(output)
    quantised.graph.name = model.graph.name
    return quantised


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


def check_accuracy(full: Accuracy, found: Accuracy, *, variant: str, least_share: float) -> None:
    """Raises TargetMissed where the variant keeps less than that share of the accuracy."""
    if found.correct < least_share * full.correct:
        raise TargetMissed(
            f"{variant} has {found.correct} of {found.samples} right, the full graph "
            f"{full.correct}: less than {least_share:.1%} of these, so it is not published"
        )


def speed(full: Run, found: Run, *, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How long both take, in turns, at two batch sizes; above 1 the variant gains.

    Turns, because a machine's speed changes while it is measured.
    """
    told = {}
    for rows in (1, 8):
        batch = {name: array[:rows] for name, array in inputs.items()}
        times: list[list[int]] = [[], []]
        for _ in range(_TURNS + 1):
            for run, kept in zip((full, found), times, strict=True):
                start_ns = time.perf_counter_ns()
                run(batch)
                kept.append(time.perf_counter_ns() - start_ns)
        first, second = (statistics.median(kept[1:]) / 1e6 for kept in times)
        told[f"batch_{rows}"] = {"full_ms": first, "variant_ms": second, "gain": first / second}
    return told
