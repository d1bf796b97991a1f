"""OUTPUT0 is what the backend knows of the request: parameters, id, priority, as JSON."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance, as Triton's Python backend calls it."""

    def initialize(self, args):
        """Keep what the model was told about itself."""
        self._name = args["model_name"]
        self._parameters = json.loads(args["model_config"])["parameters"]

    def execute(self, requests):
        """Answer each request with its own description."""
        answers = []
        for request in requests:
            told = {
                "model": self._name,
                "greeting": self._parameters["greeting"]["string_value"],
                "id": request.request_id(),
                "parameters": json.loads(request.parameters()),
                "outputs": sorted(request.requested_output_names()),
            }
            text = json.dumps(told, sort_keys=True).encode()
            output = pb_utils.Tensor("OUTPUT0", np.array([text], dtype=np.object_))
            answers.append(pb_utils.InferenceResponse([output]))
        return answers
