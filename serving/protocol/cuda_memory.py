"""CUDA shared memory: its routes and methods are there, and registering is refused.

Inputs and outputs are read and written by the CPU here; a handle of a GPU's memory is of no use.
Triton without a GPU answers the same statuses.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from ridgeline.errors import InvalidInput, NotFound

NO_REGIONS: Mapping[str, Any] = {}
_MAX_NAME_CHARACTERS = 100  # in an error text


def check_status(name: str) -> None:
    """Raises NotFound where a region is asked for: there is none."""
    if name:
        shown = name[:_MAX_NAME_CHARACTERS]
        raise NotFound(f"Unable to find cuda shared memory region: {shown!r}")


def refuse(name: str) -> NoReturn:
    """Raises InvalidInput, always."""
    raise InvalidInput(
        f"failed to register shared memory region {name[:_MAX_NAME_CHARACTERS]!r}: this server "
        f"opens no CUDA memory; register system shared memory instead"
    )
