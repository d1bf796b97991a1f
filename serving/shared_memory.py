"""Regions of POSIX shared memory that clients have registered: tensors are read and written there.

A region is a file under /dev/shm, and is only ever read and written through its file descriptor,
never mapped: a client may shrink the file at any time, which a mapping answers with SIGBUS, the end
of the server; here it is an error of one request. The bytes of an input are copied once, when the
request is decoded: what a client writes there later changes nothing that was checked.
"""

import os
import re
import resource
import stat
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.errors import AlreadyThere, InvalidInput, NotFound, Unavailable, Unusable

FOLDER = Path("/dev/shm")  # noqa: S108 - where shm_open puts its files (shm_overview(7))
_MAX_NAME_CHARACTERS = 250
_MAX_KEY_BYTES = 255  # NAME_MAX
_MAX_REGIONS = 4096
_MAX_OFFSET = 2**63
# Memory that other programs do not mean for clients: semaphores (sem_overview(7)), the channels
# between a server and its Python models, here and in Triton.
_RESERVED = ("sem.", "ridgeline", "triton_")


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a file of shared memory: `size_bytes` from `offset` on.

    The file stays open as long as somebody holds the region: a request that began before it was
    unregistered ends as if it were still there, also where the file has been unlinked since.
    """

    name: str
    key: str
    offset: int
    size_bytes: int
    _descriptor: int = field(repr=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, *, offset: int, size_bytes: int) -> bytes:
        """A copy of bytes of the region. Raises InvalidInput where they are not there."""
        self.check(offset=offset, size_bytes=size_bytes)
        data = os.pread(self._descriptor, size_bytes, self.offset + offset)
        if len(data) != size_bytes:
            raise self._has_shrunk()
        return data

    def write(self, data: bytes, *, offset: int) -> None:
        """Put bytes into the region. Raises InvalidInput where they do not fit, or it is full."""
        self.check(offset=offset, size_bytes=len(data))
        begin = self.offset + offset
        # A write behind its end would make the file larger: the client has shrunk it on purpose.
        if os.fstat(self._descriptor).st_size < begin + len(data):
            raise self._has_shrunk()
        left = memoryview(data)
        try:
            while left:
                count = os.pwrite(self._descriptor, left, begin)
                begin, left = begin + count, left[count:]
        except OSError as error:
            raise InvalidInput(
                f"cannot write into shared memory region {self.name!r}: {error}"
            ) from error

    def check(self, *, offset: int, size_bytes: int) -> None:
        """Raises InvalidInput where so many bytes from there on are not all in the region."""
        if not 0 <= offset <= self.size_bytes:
            raise InvalidInput(
                f"Invalid offset for shared memory region: {self.name!r}, which has "
                f"{self.size_bytes} bytes, received {offset}"
            )
        if not 0 <= size_bytes <= self.size_bytes - offset:
            raise InvalidInput(
                f"Invalid offset + byte size for shared memory region: {self.name!r}, which has "
                f"{self.size_bytes} bytes, received {offset} + {size_bytes}"
            )

    def _has_shrunk(self) -> InvalidInput:
        return InvalidInput(
            f"shared memory region {self.name!r} is smaller than when it was registered"
        )


class Regions:
    """The regions of a server, by name.

    A key must match `key_pattern` as a whole; `max_request_bytes` is the most that one request may
    read from all of them; an offset must be a multiple of `offset_unit_bytes`. Used in the event
    loop only.
    """

    def __init__(
        self,
        *,
        key_pattern: str = ".+",
        max_request_bytes: int = 2**63 - 1,
        offset_unit_bytes: int = 1,
        folder: Path = FOLDER,
    ) -> None:
        self.max_request_bytes = max_request_bytes
        self._offset_unit_bytes = offset_unit_bytes
        self._is_admitted = re.compile(key_pattern, re.DOTALL).fullmatch
        self._folder = folder
        self._regions: dict[str, Region] = {}
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(_MAX_REGIONS, descriptors // 2)  # connections need some, too

    def __iter__(self) -> Iterator[Region]:
        yield from self._regions.values()

    def register(self, name: str, *, key: str, offset: int, size_bytes: int) -> None:
        """Admit a region: `size_bytes` of the shared memory `key`, from `offset` on.

        Raises Unusable where there is none of that key that this process may use, InvalidInput for
        bytes that it does not have, AlreadyThere where the name is taken, Unavailable where there
        are too many regions.
        """
        if not 0 < len(name) <= _MAX_NAME_CHARACTERS:
            raise InvalidInput(
                f"the name of a region must have 1 to {_MAX_NAME_CHARACTERS} characters, "
                f"received {len(name)}"
            )
        if name in self._regions:
            raise AlreadyThere(f"shared memory region {name!r} already in manager")
        if size_bytes <= 0 or not 0 <= offset < _MAX_OFFSET - size_bytes:
            raise InvalidInput(
                f"failed to register shared memory region {name!r}: byte_size must be positive and "
                f"offset not negative, received {size_bytes} and {offset}"
            )
        if offset % self._offset_unit_bytes:
            raise InvalidInput(
                f"failed to register shared memory region {name!r}: its offset must be a multiple "
                f"of {self._offset_unit_bytes} bytes, a page, received {offset}"
            )
        if len(self._regions) >= self._most:
            raise Unavailable(f"no more than {self._most} shared memory regions are possible")
        descriptor = self._opened(key, name=name)
        region = Region(name, key, offset, size_bytes, descriptor)  # closes it, from here on
        self._check_file(region, descriptor)
        self._regions[name] = region

    def unregister(self, name: str) -> None:
        """Forget a region, if there is one of that name; of an empty name, all of them."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def listed(self, name: str) -> list[Region]:
        """The region of that name, or, of an empty one, all of them. Raises NotFound."""
        if not name:
            return list(self)
        if name not in self._regions:
            shown = name[:_MAX_NAME_CHARACTERS]
            raise NotFound(f"Unable to find system shared memory region: {shown!r}")
        return [self._regions[name]]

    def find(self, name: str) -> Region:
        """The region of that name. Raises NotFound."""
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: {name[:_MAX_NAME_CHARACTERS]!r}")
        return region

    def _opened(self, key: str, *, name: str) -> int:
        """A file descriptor of the shared memory of that key, as shm_open(3) finds it."""
        file_name = key.removeprefix("/")
        if (
            file_name in ("", ".", "..")
            or any(character in file_name for character in "/\0")
            or len(os.fsencode(file_name)) > _MAX_KEY_BYTES
        ):
            raise _unusable(
                name, f"the key must be a name like '/my_region', received {key[:80]!r}"
            )
        if file_name.startswith(_RESERVED) or not self._is_admitted(key):
            raise _unusable(name, f"the key {key!r} is not admitted here")
        # A link could lead out of the folder; a pipe or device would keep the server waiting.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        try:
            return os.open(self._folder / file_name, flags)
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise _unusable(name, f"cannot open {key!r}: {text}") from error

    def _check_file(self, region: Region, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(region.name, f"{region.key!r} is no shared memory")
        if region.offset + region.size_bytes > status.st_size:
            raise InvalidInput(
                f"failed to register shared memory region {region.name!r}: {region.key!r} has "
                f"{status.st_size} bytes, received offset {region.offset} and "
                f"byte_size {region.size_bytes}"
            )


def _unusable(name: str, why: str) -> Unusable:
    return Unusable(f"failed to register shared memory region {name!r}: {why}")
