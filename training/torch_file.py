"""Files of weights that PyTorch wrote, read without PyTorch.

`torch.save` pickles a table of tensors, each of which names a storage; the bytes of the storages
stand behind the pickle (the format before 1.6) or in files of their own in one zip archive. A
pickle may name any function to call, so this reader knows two, one that makes an OrderedDict and
one that makes a tensor, and refuses whatever names another.
"""

import math
import pickle  # restricted below: nothing but tables and tensors is made
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ridgeline.errors import CorruptData, NotFound

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # at the head of the older format
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor: which numbers of a storage it has, in which order."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, numbers: NDArray[Any], /) -> NDArray[Any]:
        """A copy of those numbers. Raises ValueError where they are not all there."""
        sizes, steps = self.shape, self.strides
        last = self.offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        count = math.prod(sizes)
        if min((*sizes, *steps, self.offset, 0)) < 0 or count > len(numbers):
            raise ValueError(f"a tensor of {sizes} does not fit its {len(numbers)} numbers")
        if count and last >= len(numbers):
            raise ValueError(f"a tensor ends at {last} of {len(numbers)} numbers")
        step_bytes = [step * numbers.itemsize for step in steps]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], sizes, step_bytes).copy()


def read_torch(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file that `torch.save` wrote of a `state_dict`, by name.

    Raises NotFound, and CorruptData for what is no such file or names anything but tensors.
    """
    try:
        with path.open("rb") as stream:
            zipped = zipfile.is_zipfile(stream)
            stream.seek(0)
            return _from_zip(stream) if zipped else _from_legacy(stream)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError),
        *(ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError),
    ) as error:  # pickle raises any of these for damaged files
        raise CorruptData(f"{path} is no table of tensors that PyTorch wrote: {error}") from error


class _Reader(pickle.Unpickler):
    """Makes tables and views of storages, and nothing else."""

    def find_class(self, module: str, name: str, /) -> Any:
        """What the pickle may name."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):

            def rebuild(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _View:
                return _View(storage, offset, tuple(shape), tuple(strides))

            return rebuild
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, told: Any, /) -> _Storage:
        """The storage that a tensor refers to."""
        kind, dtype, key, _device, count, *_ = told
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r}, which is no storage")
        return _Storage(str(key), dtype, int(count))


def _from_legacy(stream: BinaryIO) -> dict[str, NDArray[Any]]:
    head = [_Reader(stream).load() for _ in range(3)]  # the third tells sizes of C types
    if head[:2] != [_MAGIC, _PROTOCOL]:
        raise ValueError("it does not begin as one")
    views = _views(_Reader(stream).load())
    storages = {view.storage.key: view.storage for view in views.values()}
    numbers = {}
    for key in _Reader(stream).load():
        [count] = np.frombuffer(stream.read(8), "<i8")
        storage = storages[str(key)]
        if count != storage.count:
            raise ValueError(f"storage {key} should have {storage.count} numbers, it has {count}")
        numbers[storage.key] = _numbers(stream.read(count * storage.dtype.itemsize), storage)
    return {name: view.array(numbers[view.storage.key]) for name, view in views.items()}


def _from_zip(stream: BinaryIO) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(stream) as archive:
        [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder")
            if order != b"little":
                raise ValueError(f"its numbers have the byte order {order!r}")
        with archive.open(pickled) as table:
            views = _views(_Reader(table).load())
        storages = {view.storage.key: view.storage for view in views.values()}
        numbers = {
            key: _numbers(archive.read(f"{folder}data/{key}"), storage)
            for key, storage in storages.items()
        }
    return {name: view.array(numbers[view.storage.key]) for name, view in views.items()}


def _views(table: Any) -> Mapping[str, _View]:
    if not isinstance(table, dict) or not all(isinstance(view, _View) for view in table.values()):
        raise ValueError("it holds something else than tensors by name")
    return {str(name): view for name, view in table.items()}


def _numbers(data: bytes, storage: _Storage) -> NDArray[Any]:
    if len(data) != storage.count * storage.dtype.itemsize:
        raise ValueError(
            f"storage {storage.key} should have {storage.count} numbers of "
            f"{storage.dtype.itemsize} bytes, it has {len(data)} bytes"
        )
    return np.frombuffer(data, storage.dtype)
