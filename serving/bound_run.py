"""Batches of one size over ONNX Runtime whose tensors stay where they are in memory.

Any other run makes values of ONNX Runtime from our arrays, and arrays from its values.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnxruntime

from ridgeline.datatypes import datatype
from ridgeline.model import FREE, TensorSpec

_MOST_BYTES = 64 << 10  # of all tensors: what takes longer to copy takes much longer to compute


class BoundRun:
    """Runs a session over the same memory again and again; one run at a time.

    `inputs` and `outputs` have the shapes of the whole batch. Before each run, the row-major bytes
    of every input are written to its place in `places`, which are in their order.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = [_zeros(tensor) for tensor in inputs]
        self._outputs = [_zeros(tensor) for tensor in outputs]
        for bind, tensors, arrays in (
            (self._binding.bind_input, inputs, self._inputs),
            (self._binding.bind_output, outputs, self._outputs),
        ):
            for tensor, array in zip(tensors, arrays, strict=True):
                bind(tensor.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self.places = tuple(array.reshape(-1).view(np.uint8).data for array in self._inputs)

    def run(self) -> list[np.ndarray]:
        """All outputs, in their order; the next run writes to the same arrays.

        Raises onnxruntime's own error, also where the graph gives an output of another shape. It
        cannot be cut short: `OnnxEngine.stop` does not reach it.
        """
        self._session.run_with_iobinding(self._binding)
        return self._outputs


def can_bind(tensors: Sequence[TensorSpec]) -> bool:
    """Whether tensors have a fixed size, and one small enough for this to pay."""
    size_bytes = 0
    for tensor in tensors:
        item_bytes = datatype(tensor.datatype).item_bytes
        if FREE in tensor.shape or tensor.optional or not item_bytes or tensor.datatype == "BF16":
            return False
        size_bytes += item_bytes * math.prod(tensor.shape)
    return size_bytes <= _MOST_BYTES


def _zeros(tensor: TensorSpec) -> np.ndarray:
    return np.zeros(tensor.shape, dtype=datatype(tensor.datatype).numpy)
