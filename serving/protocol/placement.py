"""Tensors that lie in shared memory: what a tensor's parameters say of it."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.errors import InvalidInput, Malformed, Unusable
from serving.shared_memory import Region, Regions

REGION = "shared_memory_region"
_OFFSET, _SIZE = "shared_memory_offset", "shared_memory_byte_size"
PLACE_PARAMETERS = frozenset((REGION, _OFFSET, _SIZE))


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a region: where an input lies, or an output is to go."""

    region: Region
    offset: int
    size_bytes: int

    def write(self, data: bytes, *, name: str) -> None:
        """Put an output there. Raises Unusable where it has no room."""
        if len(data) > self.size_bytes:
            raise Unusable(
                f"shared memory size specified with the request for output {name!r} "
                f"({self.size_bytes} bytes) should be at least "
                f"{len(data)} bytes to hold the results"
            )
        self.region.write(data, offset=self.offset)


def place_of(parameters: Mapping[str, Any], *, regions: Regions, of: str) -> Place | None:
    """The place that a tensor's parameters name; None where they name none.

    Raises InvalidInput for a place that is not in its region, NotFound for an unknown region.
    """
    if REGION not in parameters:
        return None
    name = parameters[REGION]
    if type(name) is not str:
        raise InvalidInput(f"{REGION!r} of {of} must be a text, received {reprlib.repr(name)}")
    if _SIZE not in parameters:
        raise InvalidInput(f"{_SIZE!r} must be specified along with {REGION!r} for {of}")
    size_bytes = _whole_number(parameters, _SIZE, of=of)
    offset = _whole_number(parameters, _OFFSET, of=of) if _OFFSET in parameters else 0
    region = regions.find(name)
    region.check(offset=offset, size_bytes=size_bytes)
    return Place(region=region, offset=offset, size_bytes=size_bytes)


class SharedInputs:
    """Reads the inputs of one request that lie in shared memory."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._left_bytes = regions.max_request_bytes

    def read(self, parameters: Mapping[str, Any], *, of: str) -> bytes | None:
        """A copy of an input's bytes; None where it does not lie in a region.

        Raises InvalidInput, also where the inputs of the request are too large together: a few
        bytes of a message must not make the server copy any number. Raises NotFound.
        """
        place = place_of(parameters, regions=self._regions, of=of)
        if place is None:
            return None
        self._left_bytes -= place.size_bytes
        if self._left_bytes < 0:
            raise InvalidInput(
                f"inputs in shared memory are larger than {self._regions.max_request_bytes} bytes "
                f"together, which is the most of a request"
            )
        return place.region.read(offset=place.offset, size_bytes=place.size_bytes)


def _whole_number(parameters: Mapping[str, Any], key: str, *, of: str) -> int:
    value = parameters[key]
    if type(value) is not int or value < 0:
        raise Malformed(
            f"{key!r} of {of} must be a whole number, not negative, received {reprlib.repr(value)}"
        )
    return value
