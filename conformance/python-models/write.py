"""A text generator: the words of text_input come back one a response, or all in one."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance, as Triton's Python backend calls it."""

    def execute(self, requests):
        """Send the words; those of `limit` alone where it is given."""
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().ravel()[0]
            limit = pb_utils.get_input_tensor_by_name(request, "limit")
            words = text.decode().split()
            if limit is not None:
                words = words[: int(limit.as_numpy().ravel()[0])]
            sender = request.get_response_sender()
            for word in words:
                output = pb_utils.Tensor("text_output", np.array([word.encode()], dtype=np.object_))
                sender.send(pb_utils.InferenceResponse([output]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
