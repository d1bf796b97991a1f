"""Errors with which a model of somebody's own answers a request, by Triton's codes."""

from ridgeline.errors import (
    AlreadyThere,
    InvalidInput,
    NotFound,
    RidgelineError,
    Unavailable,
    Unsupported,
)
from serving.execution import EngineFault


class UnknownFault(RidgelineError):
    """The model says that it does not know what went wrong."""


class Cancelled(RidgelineError):
    """The model says that the request was given up."""


_CLASSES: dict[str, type[Exception]] = {
    "UNKNOWN": UnknownFault,
    "INTERNAL": EngineFault,
    "NOT_FOUND": NotFound,
    "INVALID_ARG": InvalidInput,
    "UNAVAILABLE": Unavailable,
    "UNSUPPORTED": Unsupported,
    "ALREADY_EXISTS": AlreadyThere,
    "CANCELLED": Cancelled,
}


def error_of(text: str, *, code: str) -> Exception:
    """The error of that code; of one that is not known, a fault of the model."""
    return _CLASSES.get(code, EngineFault)(text)
