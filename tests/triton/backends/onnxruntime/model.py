"""A Triton backend named `onnxruntime`, run by Triton's Python backend.

The wheel `nvidia-pytriton` carries the real server, but not its ONNX Runtime backend. With this
file in a folder `onnxruntime` of its backends, that server loads our repository unchanged.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One instance of one model version, as Triton's Python backend calls it."""

    def initialize(self, args):
        """Load the version's graph with one thread."""
        config = json.loads(args["model_config"])
        version = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(version / config["default_model_filename"]), options
        )
        sequences = config.get("sequence_batching", {})
        controls = [tensor["name"] for tensor in sequences.get("control_input", [])]
        self._inputs = [tensor["name"] for tensor in config["input"]] + controls
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._states = sequences.get("state", [])
        self._kept = {}  # by correlation id: the Python backend has no implicit state of its own
        self._batches = config["max_batch_size"] > 0 and not self._states

    def execute(self, requests):
        """Answer the requests of one batch, which Triton hands over one by one."""
        arrays = [self._arrays(request) for request in requests]
        if not self._batches:
            return [
                self._alone(request, inputs)
                for request, inputs in zip(requests, arrays, strict=True)
            ]
        rows = [len(inputs[self._inputs[0]]) for inputs in arrays]
        packed = {name: np.concatenate([inputs[name] for inputs in arrays]) for name in arrays[0]}
        outputs = self._session.run(self._outputs, packed)
        pieces = [np.split(array, np.cumsum(rows)[:-1]) for array in outputs]
        return [self._response(answer) for answer in zip(*pieces, strict=True)]

    def _arrays(self, request):
        """The inputs of a request that are there, texts as ONNX Runtime wants them."""
        arrays = {}
        for name in self._inputs:
            tensor = triton.get_input_tensor_by_name(request, name)
            if tensor is None:
                continue
            array = tensor.as_numpy()
            if array.dtype == np.object_:
                texts = [element.decode("utf-8") for element in array.ravel()]
                array = np.array(texts, dtype=np.object_).reshape(array.shape)
            arrays[name] = array
        return arrays

    def _alone(self, request, inputs):
        """Run one request, with the state of its sequence where the model has one."""
        key = request.correlation_id() if self._states else None
        for state in self._states:
            dims = [1, *(int(size) for size in state["dims"])]
            dtype = triton.triton_string_to_numpy(state["data_type"])
            kept = self._kept.get(key, {})
            inputs[state["input_name"]] = kept.get(state["output_name"], np.zeros(dims, dtype))
        states = [state["output_name"] for state in self._states]
        outputs = self._session.run([*self._outputs, *states], inputs)
        if states:
            self._kept[key] = dict(zip(states, outputs[len(self._outputs) :], strict=True))
        return self._response(outputs[: len(self._outputs)])

    def _response(self, arrays):
        tensors = []
        for name, array in zip(self._outputs, arrays, strict=True):
            if array.dtype == np.object_:
                array = np.array([text.encode() for text in array.ravel()], dtype=np.object_)
                array = array.reshape(arrays[len(tensors)].shape)
            tensors.append(triton.Tensor(name, np.ascontiguousarray(array).reshape(array.shape)))
        return triton.InferenceResponse(tensors)
