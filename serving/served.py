"""One version of a model as the server knows it: its state, and what answers for it."""

from dataclasses import dataclass
from enum import Enum

from ridgeline.errors import NotFound, RidgelineError, Unavailable
from serving.override import OverrideFolder
from serving.version import ReadyVersion


class LoadFault(RidgelineError):
    """The repository does not hold the model, or nothing that can be looked at as one."""


class UnknownVersion(NotFound):
    """There is no such version: it is no number."""


class State(Enum):
    """The state of a model version, in the words of Triton's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class ServedVersion:
    """One version of a model and its state; `ready` is there exactly while it is READY.

    `mark` tells the files that it was loaded from; `folder` holds them where they are temporary.
    """

    name: str
    version: str
    state: State = State.LOADING
    reason: str = "it is still loading"
    ready: ReadyVersion | None = None
    load_ns: int = 0
    mark: bytes = b""
    folder: OverrideFolder | None = None


def of_number(versions: dict[int, ServedVersion], *, name: str, version: str) -> ServedVersion:
    """The version of that name among those of a model. Raises NotFound, or UnknownVersion."""
    for served in versions.values():
        if served.version == version:
            return served
    kind = NotFound if version.isdecimal() else UnknownVersion  # Triton's codes tell them apart
    raise kind(
        f"Request for unknown model: {name!r} version {version!r} is not found; "
        f"served versions are {', '.join(map(str, sorted(versions)))}"
    )


def ready_of(served: ServedVersion) -> ReadyVersion:
    """What answers for a version. Raises Unavailable with the reason where nothing does."""
    if served.ready is None:
        raise Unavailable(
            f"model {served.name!r} version {served.version} is unavailable: {served.reason}"
        )
    return served.ready
