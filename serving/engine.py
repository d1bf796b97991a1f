"""The engine: ONNX Runtime runs one batch. Knows no queue, no request and no protocol."""

import ctypes
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from ridgeline.datatypes import DATATYPES, datatype_of_onnx
from ridgeline.errors import InvalidInput, Unavailable, Unsupported
from ridgeline.model import FREE, TensorSpec
from serving.request import Tensors

logger = logging.getLogger(__name__)

_BFLOAT16 = DATATYPES["BF16"]
_TEXT = DATATYPES["BYTES"]
_ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_WORTH_WIDENING_NS = 2_000_000  # shorter runs lose to the hand-over between threads
_LEAST_SPEEDUP = 1.2
_TRIALS = 3
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


class Engine(Protocol):
    """Runs batches of one model version; `run` is called from several threads at once."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(
        self, inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        """The named outputs, in that order, for the given inputs.

        A batch that is `alone` has the machine for itself: nothing else runs or waits.
        """

    def stop(self) -> None:
        """Make the batches that still run fail soon; called last, from any thread."""


@dataclass(frozen=True)
class EngineSettings:
    """How ONNX Runtime runs a model: `threads` an inference may use, and the provider's name."""

    threads: int
    execution_provider: str = "cpu"


class OnnxEngine:
    """A model in ONNX Runtime. `inputs` and `outputs` are as the graph has them, batch axis too.

    Raises InvalidInput where the graph uses a type that the protocol cannot carry, Unsupported
    where ONNX Runtime's Python interface cannot pass its types together, Unavailable where ONNX
    Runtime cannot load the file or the execution provider is not really there.
    """

    def __init__(self, path: Path, *, settings: EngineSettings) -> None:
        self._path, self._settings = path, settings
        self._session = _session(path, settings=settings)
        self._wide: onnxruntime.InferenceSession | None = None
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        self.provider = self._session.get_providers()[0]
        self._run_options = onnxruntime.RunOptions()
        taken = {tensor.datatype for tensor in self.inputs}
        self._converts = not taken.isdisjoint((_BFLOAT16.name, _TEXT.name))
        self._gives_bfloat16 = _BFLOAT16.name in {tensor.datatype for tensor in self.outputs}
        if self._gives_bfloat16 and _TEXT.name in taken:
            raise Unsupported(
                "the graph takes BYTES and gives BF16: no call of onnxruntime has both"
            )

    def widen(self, inputs: Tensors, /, *, threads: int) -> bool:
        """Keep a second session with so many threads, for batches that run alone, if it pays.

        Many requests are answered sooner by several batches of one thread each, one large request
        by one batch of several threads: which it is decides at each batch. Returns whether it pays.
        """
        names = [tensor.name for tensor in self.outputs]
        narrow_ns = self._median_ns(inputs, names)
        if narrow_ns < _WORTH_WIDENING_NS:
            return False
        self._wide = _session(self._path, settings=replace(self._settings, threads=threads))
        if self._median_ns(inputs, names, alone=True) * _LEAST_SPEEDUP > narrow_ns:
            self._wide = None
        return self._wide is not None

    def run(
        self, inputs: Tensors, /, *, outputs: Sequence[str], alone: bool = False
    ) -> list[np.ndarray]:
        """The named outputs, in that order; raises onnxruntime's own error where a kernel fails.

        Raises InvalidInput where an element of BYTES is not UTF-8, which ONNX asks of its texts.
        """
        session = self._wide if alone and self._wide else self._session
        if self._gives_bfloat16:
            values = {name: _to_value(array) for name, array in inputs.items()}
            results = session.run_with_ort_values(outputs, values, self._run_options)
            return [_to_array(value) for value in results]
        if self._converts:
            inputs = {name: _to_feed(array, name=name) for name, array in inputs.items()}
        return session.run(outputs, inputs, self._run_options)  # type: ignore[no-any-return]

    def _median_ns(self, inputs: Tensors, names: Sequence[str], *, alone: bool = False) -> float:
        took = []
        for _ in range(_TRIALS + 1):  # the first one also allocates
            begin_ns = time.perf_counter_ns()
            self.run(inputs, outputs=names, alone=alone)
            took.append(time.perf_counter_ns() - begin_ns)
        return statistics.median(took[1:])

    def stop(self) -> None:
        """End running inferences at their next operator, and every later one at its first."""
        self._run_options.terminate = True


def resolved_provider(name: str) -> str:
    """What "auto" means on this machine; any other name as it is."""
    if name != "auto":
        return name
    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def _session(path: Path, *, settings: EngineSettings) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Threads that spin between batches take the cores that the front end needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted, available = settings.execution_provider, onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[name for name in _PROVIDERS[wanted] if name in available]
        )
    except Exception as error:  # onnxruntime raises a dozen unrelated types here
        raise Unavailable(f"ONNX Runtime cannot load {path.name}: {error}") from error
    # A provider whose libraries are missing falls back without an exception: look what is there.
    if session.get_providers()[0] != _PROVIDERS[wanted][0]:
        raise Unavailable(
            f"the execution provider {wanted!r} was asked for, but ONNX Runtime offers only "
            f"{', '.join(session.get_providers())} on this machine"
        )
    return session


def _specs(arguments: Sequence[onnxruntime.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=argument.name,
            datatype=datatype_of_onnx(argument.type).name,
            shape=tuple(size if isinstance(size, int) else FREE for size in argument.shape),
        )
        for argument in arguments
    )


def _to_feed(array: np.ndarray, *, name: str) -> np.ndarray | onnxruntime.OrtValue:
    """What ONNX Runtime takes for an array: texts as str, bfloat16 as an OrtValue, others as is."""
    if array.dtype == _BFLOAT16.numpy:
        return _to_value(array)
    if array.dtype != _TEXT.numpy:
        return array
    try:  # given bytes, ONNX Runtime would take their Python spelling, quotes and all
        texts = [element.decode("utf-8") for element in array.flat]
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"an element of the BYTES input {name!r} is not UTF-8: {error}"
        ) from None
    return np.array(texts, dtype=np.object_).reshape(array.shape)


def _to_value(array: np.ndarray) -> onnxruntime.OrtValue:
    if array.dtype != _BFLOAT16.numpy:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16).reshape(array.shape)  # a scalar got an axis
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _to_array(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.element_type() != _ONNX_BFLOAT16:
        return value.numpy()  # type: ignore[no-any-return]
    shape = value.shape()
    if 0 in shape:
        return np.empty(shape, dtype=_BFLOAT16.numpy)
    bits = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16))
    array: np.ndarray = np.ctypeslib.as_array(bits, shape).copy().view(_BFLOAT16.numpy)
    return array.reshape(shape)  # ctypes makes an axis for a scalar, too
