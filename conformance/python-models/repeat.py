"""Decoupled: as many responses as INPUT0 says, counting up; none where it is 0."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance, as Triton's Python backend calls it."""

    def execute(self, requests):
        """Send the responses of each request, and then that it is done."""
        for request in requests:
            count = int(pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy().ravel()[0])
            sender = request.get_response_sender()
            for number in range(count):
                output = pb_utils.Tensor("OUTPUT0", np.array([number], dtype=np.int32))
                sender.send(pb_utils.InferenceResponse([output]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
