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
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        """Answer the requests of one batch, which Triton hands over one by one."""
        inputs = {
            name: [
                triton.get_input_tensor_by_name(request, name).as_numpy() for request in requests
            ]
            for name in self._inputs
        }
        rows = [len(array) for array in inputs[self._inputs[0]]]
        packed = {name: np.concatenate(arrays) for name, arrays in inputs.items()}
        outputs = self._session.run(self._outputs, packed)
        pieces = [np.split(array, np.cumsum(rows)[:-1]) for array in outputs]
        return [
            triton.InferenceResponse(
                [
                    triton.Tensor(name, np.ascontiguousarray(piece))
                    for name, piece in zip(self._outputs, answer, strict=True)
                ]
            )
            for answer in zip(*pieces, strict=True)
        ]
