"""The second engine, on CPUs: OpenVINO, in float32 only. Its package is optional."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.errors import Unsupported
from serving.engine import Engine
from serving.request import Tensors

_DATATYPES = {"FP32", "INT32", "INT8", "UINT8", "BOOL"}  # which it keeps as they are
_OTHER_FLOATS = {"f64", "f16", "bf16", "f8e4m3", "f8e5m2"}


class OpenVinoEngine:
    """A model in OpenVINO: `streams` batches at once, `threads` for each.

    Inputs and outputs are those of `like`, the same model in ONNX Runtime. Raises Unsupported, with
    the reason, where OpenVINO is not installed, cannot load the model, or would compute it in
    other types than the graph says: its CPU kernels know no float64 and no int64.
    """

    def __init__(self, path: Path, *, like: Engine, threads: int, streams: int) -> None:
        self.inputs, self.outputs = like.inputs, like.outputs
        for tensor in (*self.inputs, *self.outputs):
            if tensor.datatype not in _DATATYPES:
                raise Unsupported(f"{tensor.name!r} is {tensor.datatype}")
        self._compiled = _compiled(path, threads=threads, streams=streams)
        self._places = _places(self._compiled)
        if missing := {tensor.name for tensor in self.outputs} - self._places.keys():
            raise Unsupported(f"OpenVINO does not know the outputs {sorted(missing)}")
        self._lock = threading.Lock()
        self._requests: list[Any] = []  # all of them; `_free` are those that do not run
        self._free: list[Any] = []
        self._stopped = False

    def run(
        self,
        inputs: Tensors,
        /,
        *,
        outputs: Sequence[str],
        alone: bool = False,  # noqa: ARG002 - the number of threads is fixed
    ) -> list[np.ndarray]:
        """The named outputs, in that order; raises OpenVINO's own error where a kernel fails."""
        request = self._start(inputs)
        try:
            request.wait()
            # The request's own memory is written to by the next batch.
            return [request.get_output_tensor(self._places[name]).data.copy() for name in outputs]
        finally:
            with self._lock:
                self._free.append(request)

    def stop(self) -> None:
        """End running inferences at their next operator, and refuse every later one."""
        with self._lock:
            self._stopped = True
            requests = list(self._requests)
        for request in requests:
            request.cancel()

    def _start(self, inputs: Tensors) -> Any:
        """A request that nobody used, started: as many are made as run at once.

        In one go, so that `stop` meets every request before its start or after, never between.
        """
        with self._lock:
            if self._stopped:
                raise RuntimeError("the engine has been stopped")
            if not self._free:
                self._free.append(self._compiled.create_infer_request())
                self._requests.append(self._free[-1])
            self._free[-1].start_async(inputs, share_inputs=True)
            return self._free.pop()


def version() -> str:
    """OpenVINO's version. Raises Unsupported where it is not installed."""
    return str(_openvino().__version__)


def _openvino() -> Any:
    try:
        import openvino  # costs time and memory that only those pay who choose it
    except ImportError as error:
        raise Unsupported(f"OpenVINO is not installed: {error}") from error
    return openvino


def _compiled(path: Path, *, threads: int, streams: int) -> Any:
    openvino = _openvino()
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        _check_types(model)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                # Whatever the processor could do faster in fewer bits: answers stay as they are.
                "INFERENCE_PRECISION_HINT": "f32",
                "EXECUTION_MODE_HINT": "ACCURACY",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
                "INFERENCE_NUM_THREADS": threads * streams,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # the front end needs a core, too
            },
        )
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    except RuntimeError as error:  # the only type that OpenVINO raises
        reason = str(error).strip().splitlines()[-1]
        raise Unsupported(f"OpenVINO cannot load {path.name}: {reason}") from error
    if precision != "f32":
        raise Unsupported(f"OpenVINO would compute in {precision}")
    return compiled


def _check_types(model: Any) -> None:
    found = {
        output.get_element_type().get_type_name()
        for operator in model.get_ops()
        for output in operator.outputs()
    }
    if others := sorted(found & _OTHER_FLOATS):
        raise Unsupported(f"the graph computes in {', '.join(others)}, not in f32 alone")


def _places(compiled: Any) -> dict[str, int]:
    """The place of each output, by each of its names."""
    return {name: place for place, port in enumerate(compiled.outputs) for name in port.get_names()}
