"""Fails in the way that INPUT0 names: "error" answers one, "raise" raises, "text" succeeds."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance, as Triton's Python backend calls it."""

    def execute(self, requests):
        """Answer each request as it asks."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        way = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy().ravel()[0].decode()
        if way == "raise":
            raise ValueError("raised on purpose")
        if way == "text":
            output = pb_utils.Tensor("OUTPUT0", np.array([way.encode()], dtype=np.object_))
            return pb_utils.InferenceResponse([output])
        codes = {
            "unknown": pb_utils.TritonError.UNKNOWN,
            "internal": pb_utils.TritonError.INTERNAL,
            "not_found": pb_utils.TritonError.NOT_FOUND,
            "invalid_arg": pb_utils.TritonError.INVALID_ARG,
            "unavailable": pb_utils.TritonError.UNAVAILABLE,
            "unsupported": pb_utils.TritonError.UNSUPPORTED,
            "already_exists": pb_utils.TritonError.ALREADY_EXISTS,
            "cancelled": pb_utils.TritonError.CANCELLED,
        }
        if way in codes:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(way, codes[way]))
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("answered on purpose"))
