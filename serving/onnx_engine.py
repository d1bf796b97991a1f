"""The engine that every model has: ONNX Runtime."""

import contextlib
import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from ridgeline.datatypes import DATATYPES, datatype_of_onnx
from ridgeline.errors import InvalidInput, Unavailable, Unsupported
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.bound_run import BoundRun, can_bind
from serving.engine import EngineSettings
from serving.graph_cache import CachedGraph
from serving.request import Tensors

logger = logging.getLogger(__name__)

_BFLOAT16 = DATATYPES["BF16"]
_TEXT = DATATYPES["BYTES"]
_ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_SPIN_US = "200"  # longer than the gaps between operators; what a core that is not free can lose
_WEIGHTS_FILE = "weights.bin"
_LEAST_WEIGHT_BYTES = "1024"  # smaller ones stay in the graph
_ERRORS_ONLY = 3
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


class OnnxEngine:
    """A model in ONNX Runtime. `inputs` and `outputs` are as the graph has them, batch axis too.

    An input for which the graph has a value of its own is optional.
    Raises InvalidInput where the graph uses a type that the protocol cannot carry, Unsupported
    where ONNX Runtime's Python interface cannot pass its types together, Unavailable where ONNX
    Runtime cannot load the file or the execution provider is not really there. Where there is a
    `cache`, the optimised graph is read from there, or written.
    """

    def __init__(
        self, path: Path, *, settings: EngineSettings, cache: CachedGraph | None = None
    ) -> None:
        self._session = _cached_session(path, settings=settings, cache=cache)
        self.inputs = (
            *_specs(self._session.get_inputs()),
            *_optional(self._session.get_overridable_initializers()),
        )
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

    def run(
        self,
        inputs: Tensors,
        /,
        *,
        outputs: Sequence[str],
        alone: bool = False,  # noqa: ARG002 - the number of threads is fixed
    ) -> list[np.ndarray]:
        """The named outputs, in that order; raises onnxruntime's own error where a kernel fails.

        Raises InvalidInput where an element of BYTES is not UTF-8, which ONNX asks of its texts.
        """
        session = self._session
        if self._gives_bfloat16:
            values = {name: _to_value(array) for name, array in inputs.items()}
            results = session.run_with_ort_values(outputs, values, self._run_options)
            return [_to_array(value) for value in results]
        if self._converts:
            inputs = {name: _to_feed(array, name=name) for name, array in inputs.items()}
        return session.run(outputs, inputs, self._run_options)  # type: ignore[no-any-return]

    def bound(self, spec: ModelSpec, rows: int) -> BoundRun | None:
        """Memory of its own for batches of so many rows of a model that this engine runs.

        None where the sizes of its tensors are not fixed, or too large for that to pay; and where
        an output is an input passed on, since ONNX Runtime then leaves our memory as it was.
        """
        axes = (rows,) if spec.batches else ()
        inputs, outputs = (
            tuple(replace(tensor, shape=(*axes, *tensor.shape)) for tensor in tensors)
            for tensors in (spec.inputs, spec.outputs)
        )
        tensors = (*inputs, *outputs)
        if self.provider != _PROVIDERS["cpu"][0] or not can_bind(tensors):
            return None
        if len({tensor.name for tensor in tensors}) < len(tensors):
            return None
        return BoundRun(self._session, inputs=inputs, outputs=outputs)

    def stop(self) -> None:
        """End running inferences at their next operator, and every later one at its first."""
        self._run_options.terminate = True


def resolved_provider(name: str) -> str:
    """What "auto" means on this machine; any other name as it is."""
    if name != "auto":
        return name
    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def _cached_session(
    path: Path, *, settings: EngineSettings, cache: CachedGraph | None
) -> onnxruntime.InferenceSession:
    """A session over the optimised graph on disk, where there is one or one can be written."""
    optimised = cache and (cache.find() or cache.write(_write_optimised(path, settings=settings)))
    if cache and optimised:
        try:
            return _session(optimised, settings=settings, optimise=False)
        except Unavailable as error:
            logger.warning("the optimised graph of %s is of no use: %s", path, error)
            cache.discard()
    return _session(path, settings=settings)


def _write_optimised(path: Path, *, settings: EngineSettings) -> Callable[[Path], None]:
    """What writes the graph as ONNX Runtime has it after its optimisations, weights apart.

    Weights in a file of their own are mapped into memory, not read: that is most of the time.
    """

    def write(to: Path) -> None:
        options = _options(settings)
        options.optimized_model_filepath = str(to)
        options.log_severity_level = _ERRORS_ONLY  # it warns that the file fits this processor only
        for key, value in (
            ("initializers_file_name", _WEIGHTS_FILE),
            ("initializers_min_size_in_bytes", _LEAST_WEIGHT_BYTES),
        ):
            options.add_session_config_entry(f"session.optimized_model_external_{key}", value)
        _opened(path, options, settings=settings)

    return write


def _session(
    path: Path, *, settings: EngineSettings, optimise: bool = True
) -> onnxruntime.InferenceSession:
    options = _options(settings)
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _opened(path, options, settings=settings)
    wanted = settings.execution_provider
    # A provider whose libraries are missing falls back without an exception: look what is there.
    if session.get_providers()[0] != _PROVIDERS[wanted][0]:
        raise Unavailable(
            f"the execution provider {wanted!r} was asked for, but ONNX Runtime offers only "
            f"{', '.join(session.get_providers())} on this machine"
        )
    return session


def _opened(
    path: Path, options: onnxruntime.SessionOptions, *, settings: EngineSettings
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    wanted = _PROVIDERS[settings.execution_provider]
    if settings.execution_provider != "cpu":
        onnxruntime.preload_dlls()  # CUDA's and cuDNN's lie in packages of their own
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[name for name in wanted if name in available]
        )
    except Exception as error:  # onnxruntime raises a dozen unrelated types here
        raise Unavailable(f"ONNX Runtime cannot load {path.name}: {error}") from error


def _options(settings: EngineSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Threads that spin between batches take the cores that the front end needs.
    entries = {"session.intra_op.allow_spinning": "1" if settings.spins else "0"}
    if settings.spins:
        entries["session.intra_op.spin_duration_us"] = _SPIN_US
        entries["session.force_spinning_stop"] = "1"  # when an inference ends
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _specs(arguments: Sequence[onnxruntime.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=argument.name,
            datatype=datatype_of_onnx(argument.type).name,
            shape=tuple(size if isinstance(size, int) else FREE for size in argument.shape),
        )
        for argument in arguments
    )


def _optional(arguments: Sequence[onnxruntime.NodeArg]) -> tuple[TensorSpec, ...]:
    """What may be given in the place of the graph's own values, but for types without a datatype:
    graphs of old versions list all of their weights here.
    """
    found = []
    for argument in arguments:
        with contextlib.suppress(InvalidInput):
            found += [replace(tensor, optional=True) for tensor in _specs([argument])]
    return tuple(found)


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
