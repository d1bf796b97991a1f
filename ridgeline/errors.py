"""The errors that Ridgeline raises on purpose, in one tree. Knows no HTTP and no gRPC.

    RidgelineError
    |-- InvalidInput        what the caller sent or wrote is wrong: a tensor, a recipe key
    |   |-- WrongUsage      it stood on the command line
    |   |-- Malformed       it cannot be read: no JSON, or a field is missing or of another kind
    |   `-- Unusable        it names what cannot be used: a shared memory, a path
    |-- NotFound            there is no such model, version, file or recipe
    |   `-- MissingData     data or weights are neither here nor to be had
    |-- AlreadyThere        the name is taken
    |-- CorruptData         a file is truncated, or is not what its digest says
    |-- Unavailable         it exists, but cannot answer now: loading, failed to load, stopping
    |   `-- Overloaded      there is too much to do; the caller may try again later
    |-- DeadlineExceeded    the time the caller gave ran out before the work was done
    |-- Unsupported         a valid wish that this server does not implement
    |-- TargetMissed        training ended below the accuracy that its recipe promises
    |-- ParityFailed        the exported model does not answer as the trained one does
    `-- StepFailed          a process that a command started ended badly

Anything else that escapes is a fault of ours: INTERNAL / 500, logged with its traceback.
"""


class RidgelineError(Exception):
    """Base of every error raised on purpose; its text is meant for the user."""


class InvalidInput(RidgelineError, ValueError):
    """What the caller sent or wrote is wrong; the text says what was received and what expected."""


class WrongUsage(InvalidInput):
    """What was written on the command line is wrong."""


class Malformed(InvalidInput):
    """A text cannot be read: it is no JSON, or a field is missing or of another kind."""


class Unusable(InvalidInput):
    """What the caller names cannot be used: a shared memory, a path."""


class NotFound(RidgelineError, LookupError):
    """There is no such model, version, file or recipe."""


class MissingData(NotFound):
    """A data set, or weights, are neither here nor to be had; the text says what to put where."""


class AlreadyThere(RidgelineError):
    """There is something of that name already."""


class CorruptData(RidgelineError):
    """A file is truncated, or is not what its digest says."""


class Unavailable(RidgelineError):
    """It exists, but cannot answer now; in `retry_after_ns` it may, where that is known."""

    def __init__(self, text: str, *, retry_after_ns: int | None = None) -> None:
        super().__init__(text)
        self.retry_after_ns = retry_after_ns


class Overloaded(Unavailable):
    """The request cannot be answered in time, or the queue is full: it was not accepted."""


class DeadlineExceeded(RidgelineError):
    """The time the caller gave ran out before the work was done."""


class Unsupported(RidgelineError):
    """A valid wish that this server does not implement."""


class TargetMissed(RidgelineError):
    """Training ended below the accuracy that its recipe promises."""


class ParityFailed(RidgelineError):
    """The exported model does not answer as the trained one does."""


class StepFailed(RidgelineError):
    """A process that a command started ended badly."""
