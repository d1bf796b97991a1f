"""What a `model.py` imports: the interface of Triton's Python backend, on numpy arrays.

Names and behaviour are Triton's, so that a model runs in either server unchanged.
"""

import asyncio
import enum
import json
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ridgeline.datatypes import DATATYPES, datatype_of_numpy
from ridgeline.errors import InvalidInput
from serving.python_worker.model_config import ModelConfig

__all__ = ["InferenceRequest", "InferenceResponse", "Logger", "ModelConfig", "Tensor"]

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2
TRITONSERVER_MEMORY_CPU = 0
TRITONSERVER_MEMORY_GPU = 1
_CREDIT = 64  # responses of a stream that may be under way

TRITON_STRING_TO_NUMPY = {
    kind.config: bool if kind.name == "BOOL" else kind.numpy.type
    for kind in DATATYPES.values()
    if kind.name != "BF16"
}
# Triton's numbers of its datatypes.
_NUMBERS = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "FP32", "FP64", "BYTES",
)  # fmt: skip
_NUMPY_OF_NUMBER = {
    number: bool if name == "BOOL" else DATATYPES[name].numpy.type
    for number, name in enumerate(_NUMBERS, start=1)
}


class TritonModelException(Exception):
    """Raised for wrong use of this interface; a model may raise it, too."""


class TritonError:
    """An error that answers one request: its text and its code."""

    class _Code(enum.IntEnum):
        UNKNOWN = 0
        INTERNAL = 1
        NOT_FOUND = 2
        INVALID_ARG = 3
        UNAVAILABLE = 4
        UNSUPPORTED = 5
        ALREADY_EXISTS = 6
        CANCELLED = 7

    UNKNOWN = _Code.UNKNOWN
    INTERNAL = _Code.INTERNAL
    NOT_FOUND = _Code.NOT_FOUND
    INVALID_ARG = _Code.INVALID_ARG
    UNAVAILABLE = _Code.UNAVAILABLE
    UNSUPPORTED = _Code.UNSUPPORTED
    ALREADY_EXISTS = _Code.ALREADY_EXISTS
    CANCELLED = _Code.CANCELLED

    def __init__(self, message: str, code: "TritonError._Code" = _Code.INTERNAL) -> None:
        self._message, self._code = message, TritonError._Code(code)

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> "TritonError._Code":
        """The code."""
        return self._code


class Tensor:
    """A named array. BYTES are object arrays of bytes."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"the tensor {name!r} takes a numpy array, received {type(array)}")
        if array.dtype.kind == "U":
            raise TritonModelException("NumPy dtype is not supported.")
        try:
            datatype_of_numpy(array.dtype)
        except InvalidInput:
            raise TritonModelException("NumPy dtype is not supported.") from None
        self._name = str(name)
        contiguous: np.ndarray = np.ascontiguousarray(array).reshape(array.shape)
        self._array = contiguous

    def name(self) -> str:
        """The name."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """The array itself."""
        return self._array

    def shape(self) -> list[int]:
        """The sizes of its axes."""
        return list(self._array.shape)

    def triton_dtype(self) -> int:
        """Triton's number of its datatype."""
        return numpy_to_triton_type(self._array.dtype)

    def is_cpu(self) -> bool:
        """Always: there are no tensors in GPU memory here."""
        return True

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self._array.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def to_dlpack(self) -> Any:
        """A DLPack capsule over the array."""
        return self._array.__dlpack__()

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> "Tensor":
        """A tensor over whatever exports DLPack (torch, jax, numpy, ...)."""
        return Tensor(name, np.from_dlpack(tensor))


class InferenceResponse:
    """The answer to a request: tensors, or an error."""

    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None
    ) -> None:
        if not all(isinstance(tensor, Tensor) for tensor in output_tensors):
            raise TypeError(f"output_tensors must be a list of Tensor, received {output_tensors}")
        if not isinstance(error, TritonError | None):
            raise TypeError(f"error must be a TritonError, received {error!r}")
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        """The tensors; not to be looked at where there is an error."""
        if self._error:
            raise TritonModelException(self._error.message())
        return self._tensors

    def has_error(self) -> bool:
        """Whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error, or None."""
        return self._error


class PreferredMemory:
    """Where outputs of another model should be; it is always the CPU's memory here."""

    def __init__(self, memory_type: int = TRITONSERVER_MEMORY_CPU, device_id: int = 0) -> None:
        self.memory_type, self.device_id = memory_type, device_id


class InferenceRequest:
    """A request to this model; or one that this model makes to another, by `exec`."""

    def __init__(
        self,
        *,
        inputs: Sequence[Tensor],
        requested_output_names: Sequence[str],
        model_name: str,
        request_id: str = "",
        correlation_id: int | str = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,  # noqa: ARG002 - there is one memory
        trace: Any = None,
        parameters: dict[str, Any] | str | None = None,
    ) -> None:
        if not all(isinstance(tensor, Tensor) for tensor in inputs):
            raise TypeError(f"inputs must be a list of Tensor, received {inputs}")
        self._inputs, self._outputs = list(inputs), list(requested_output_names)
        self._model, self._version = model_name, model_version
        self._id, self._correlation_id = request_id, correlation_id
        self._flags, self._timeout = flags, timeout
        self._trace = trace
        text = parameters if isinstance(parameters, str) else json.dumps(parameters or {})
        self._parameters = text
        self._sender: InferenceResponseSender | None = None
        self._cancelled = False

    def inputs(self) -> list[Tensor]:
        """Its tensors."""
        return self._inputs

    def request_id(self) -> str:
        """What the client calls it."""
        return self._id

    def correlation_id(self) -> int | str:
        """The sequence that it belongs to; 0 for none."""
        return self._correlation_id

    def requested_output_names(self) -> list[str]:
        """The outputs that are wanted."""
        return self._outputs

    def parameters(self) -> str:
        """The client's own parameters, as JSON."""
        return self._parameters

    def flags(self) -> int:
        """Whether it begins or ends a sequence."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Say whether it begins or ends a sequence."""
        self._flags = flags

    def set_release_flags(self, flags: int) -> None:
        """Only releasing for good is possible."""
        if flags != TRITONSERVER_REQUEST_RELEASE_ALL:
            raise TritonModelException("a request cannot be rescheduled in this server")

    def timeout(self) -> int:
        """Microseconds that it may wait; 0 without a limit."""
        return self._timeout

    def trace(self) -> Any:
        """What was given as its trace."""
        return self._trace

    def is_cancelled(self) -> bool:
        """Whether its caller has gone."""
        return self._cancelled

    def get_response_sender(self) -> "InferenceResponseSender":
        """What sends its responses, one by one."""
        if self._sender is None:
            raise TritonModelException("only requests that came from the server are answered so")
        return self._sender

    def exec(self, decoupled: bool = False) -> InferenceResponse:
        """Ask the model, and wait for its answer."""
        if decoupled:
            raise TritonModelException("exec of decoupled models is not possible in this server")
        if _SERVER.call is None:
            raise TritonModelException("other models can be asked in execute only")
        return _SERVER.call(self)

    async def async_exec(self, decoupled: bool = False) -> InferenceResponse:
        """Ask the model without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(None, self.exec, decoupled)


class InferenceResponseSender:
    """Sends the responses of one request; any thread may use it."""

    def __init__(
        self, request: InferenceRequest, send: Callable[[InferenceResponse | None, bool], None]
    ) -> None:
        self._request, self._send = request, send
        self._credit = threading.Semaphore(_CREDIT)
        self.closed = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response; with TRITONSERVER_RESPONSE_COMPLETE_FINAL it is the last, or none is.

        Waits where the client takes them more slowly. Raises TritonModelException after the last.
        """
        if self.closed:
            raise TritonModelException("Unable to send response. Response sender has been closed.")
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException(f"Unable to send response. Unsupported flag {flags}.")
        if response is None and not flags:
            raise TritonModelException("Inference Response object must be provided.")
        self.closed = bool(flags)
        if response is not None and not self._request.is_cancelled():
            self._credit.acquire()
        self._send(response, bool(flags))

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the responses any more."""
        return self._request.is_cancelled()

    def give_credit(self, count: int) -> None:
        """The client has taken so many; called by the worker."""
        self._credit.release(count)


class _Server:
    """What the worker puts in: how to reach the server."""

    call: Callable[[InferenceRequest], InferenceResponse] | None = None
    log: Callable[[str, str], None] | None = None
    ready: Callable[[str, str], bool] | None = None
    directory = ""


_SERVER = _Server()


class Logger:
    """Writes into the server's log."""

    class LogLevel(enum.Enum):
        """How severe a message is."""

        INFO = "info"
        WARNING = "warning"
        ERROR = "error"
        VERBOSE = "debug"

    INFO, WARNING, ERROR, VERBOSE = LogLevel

    @staticmethod
    def log(message: str, level: "Logger.LogLevel" = LogLevel.INFO) -> None:
        """Write a message."""
        if _SERVER.log:
            _SERVER.log(level.value, str(message))

    @staticmethod
    def log_info(message: str) -> None:
        """Write something worth knowing."""
        Logger.log(message, Logger.INFO)

    @staticmethod
    def log_warn(message: str) -> None:
        """Write a warning."""
        Logger.log(message, Logger.WARNING)

    @staticmethod
    def log_error(message: str) -> None:
        """Write an error."""
        Logger.log(message, Logger.ERROR)

    @staticmethod
    def log_verbose(message: str) -> None:
        """Write a detail."""
        Logger.log(message, Logger.VERBOSE)


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of that name, or None."""
    return next((one for one in inference_request.inputs() if one.name() == name), None)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name, or None."""
    return next((one for one in inference_response.output_tensors() if one.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What the configuration says of an input, or None."""
    return next((one for one in model_config.get("input", ()) if one["name"] == name), None)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What the configuration says of an output, or None."""
    return next((one for one in model_config.get("output", ()) if one["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Whether the configuration says that a request gets any number of responses."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def triton_string_to_numpy(triton_type_string: str) -> type:
    """The numpy type of a datatype of config.pbtxt. Raises KeyError."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def numpy_to_triton_type(data_type: Any) -> int:
    """Triton's number of a numpy type."""
    return _NUMBERS.index(datatype_of_numpy(np.dtype(data_type)).name) + 1


def triton_to_numpy_type(data_type: int) -> type:
    """The numpy type of Triton's number."""
    return _NUMPY_OF_NUMBER[data_type]


def serialize_byte_tensor(input_tensor: np.ndarray) -> bytes | None:
    """The elements as bytes, each behind its length; None for an empty tensor."""
    if not input_tensor.size:
        return None
    elements = [one if isinstance(one, bytes) else str(one).encode() for one in input_tensor.flat]
    return b"".join(struct.pack("<I", len(data)) + data for data in elements)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> np.ndarray:
    """The other way round: a flat array of bytes."""
    elements, position = [], 0
    while position < len(encoded_tensor):
        (length,) = struct.unpack_from("<I", encoded_tensor, position)
        elements.append(bytes(encoded_tensor[position + 4 : position + 4 + length]))
        position += 4 + length
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def get_model_dir() -> str:
    """The folder of the version, where model.py is."""
    return _SERVER.directory


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether the server could answer for another model."""
    return bool(_SERVER.ready and _SERVER.ready(model_name, model_version))
