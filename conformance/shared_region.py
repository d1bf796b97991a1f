"""A region of POSIX shared memory that a server on this machine can open by its key."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory

_numbers = itertools.count()


class Region:
    """A region made by this process; `key` is what a server opens."""

    def __init__(self, memory: shared_memory.SharedMemory) -> None:
        self._memory = memory
        self.key = f"/{memory.name.lstrip('/')}"

    def write(self, data: bytes, *, at: int = 0) -> None:
        """Put bytes into it."""
        self._bytes()[at : at + len(data)] = data

    def read(self, size: int, *, at: int = 0) -> bytes:
        """Take bytes out of it."""
        return bytes(self._bytes()[at : at + size])

    def _bytes(self) -> "memoryview[int]":
        buffer = self._memory.buf
        if buffer is None:
            raise ValueError(f"the region {self.key} is closed")
        return buffer


@contextmanager
def region(size: int) -> Iterator[Region]:
    """A region of so many bytes, removed afterwards."""
    name = f"conformance-{os.getpid()}-{next(_numbers)}"
    memory = shared_memory.SharedMemory(name=name, create=True, size=size)
    try:
        yield Region(memory)
    finally:
        memory.close()
        memory.unlink()
