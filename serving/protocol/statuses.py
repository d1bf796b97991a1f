"""The one table from errors to gRPC and HTTP statuses."""

import logging
from http import HTTPStatus

import grpc

from ridgeline.errors import (
    AlreadyThere,
    CorruptData,
    DeadlineExceeded,
    InvalidInput,
    Malformed,
    NotFound,
    Overloaded,
    RidgelineError,
    Unavailable,
    Unsupported,
    Unusable,
)
from serving.execution import EngineFault
from serving.log_settings import UnknownFormat
from serving.model_errors import Cancelled, UnknownFault
from serving.served import LoadFault, UnknownVersion

logger = logging.getLogger(__name__)

# A gRPC status travels in a trailer of 8 KiB at most, where a character may take 12 bytes; what a
# client sent (a name, say) can be longer than that.
_MAX_TEXT_CHARACTERS = 600

Table = tuple[tuple[type[Exception], grpc.StatusCode, HTTPStatus], ...]

# The first class that fits decides, so a subclass stands above its base. The pairs are those of
# Triton, but for those below, and for Overloaded, which is Unavailable where the settings ask for
# Triton's codes.
STATUSES: Table = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT, HTTPStatus.BAD_REQUEST),
    (UnknownVersion, grpc.StatusCode.INVALID_ARGUMENT, HTTPStatus.NOT_FOUND),
    (NotFound, grpc.StatusCode.NOT_FOUND, HTTPStatus.NOT_FOUND),
    (AlreadyThere, grpc.StatusCode.ALREADY_EXISTS, HTTPStatus.BAD_REQUEST),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.TOO_MANY_REQUESTS),
    (Unavailable, grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, HTTPStatus.GATEWAY_TIMEOUT),
    (Unsupported, grpc.StatusCode.UNIMPLEMENTED, HTTPStatus.NOT_IMPLEMENTED),
    (CorruptData, grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR),
    (LoadFault, grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR),
    (EngineFault, grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR),
    (UnknownFault, grpc.StatusCode.UNKNOWN, HTTPStatus.BAD_REQUEST),
    (Cancelled, grpc.StatusCode.CANCELLED, HTTPStatus.BAD_REQUEST),
)
# Where Triton blames itself for what the client sent, or calls a request that waited too long a
# refusal; these stand first where its codes are asked for.
TRITON_STATUSES: Table = (
    (Malformed, grpc.StatusCode.INVALID_ARGUMENT, HTTPStatus.INTERNAL_SERVER_ERROR),
    (Unusable, grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR),
    (DeadlineExceeded, grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    (UnknownFormat, grpc.StatusCode.INVALID_ARGUMENT, HTTPStatus.SERVICE_UNAVAILABLE),
)


def status_of(
    error: Exception, *, like_triton: bool = False
) -> tuple[grpc.StatusCode, HTTPStatus, str]:
    """The gRPC code, the HTTP status and the text for the client.

    An error that the table does not know is our fault: logged with its traceback, INTERNAL / 500.
    """
    for kind, code, http in (*TRITON_STATUSES, *STATUSES) if like_triton else STATUSES:
        if isinstance(error, kind):
            return code, http, _bounded(str(error))
    if not isinstance(error, RidgelineError):
        logger.error("a request failed unexpectedly", exc_info=error)
    text = _bounded(f"internal error: {type(error).__name__}: {error}")
    return grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR, text


def _bounded(text: str) -> str:
    if len(text) <= _MAX_TEXT_CHARACTERS:
        return text
    half = _MAX_TEXT_CHARACTERS // 2
    return f"{text[:half]} ... {text[-half:]}"
