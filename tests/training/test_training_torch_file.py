"""Files that PyTorch wrote: both formats are read, and nothing of theirs is ever called."""

import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.errors import CorruptData, NotFound
from training.torch_file import read_torch

MAGIC = 0x1950A86A20F9469CFC6C
TENSORS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "bias": np.array([0.5, -1, 2], dtype=np.float64),
    "count": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 5), dtype=np.float32),
}
STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class Torch:
    """Just enough of a module of that name that Python's pickler writes its names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package = types.ModuleType("torch")
        self.functions = types.ModuleType("torch._utils")
        for name in ("FloatStorage", "DoubleStorage", "LongStorage"):
            setattr(self.package, name, type(name, (), {"__module__": "torch"}))

        def rebuild(*_arguments: Any) -> None: ...

        rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        self.functions._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch", self.package)
        monkeypatch.setitem(sys.modules, "torch._utils", self.functions)

    def tensor(self, key: str, array: np.ndarray, **instead: Any) -> "Written":
        strides = tuple(step // array.itemsize for step in array.strides)
        view = {"offset": 0, "shape": array.shape, "strides": strides, "count": array.size}
        kind = getattr(self.package, STORAGES[array.dtype.name])
        return Written(self, kind, key, view | instead)

    def table(self, tensors: dict[str, np.ndarray] = TENSORS) -> OrderedDict[str, Any]:
        made = {name: self.tensor(str(k), a) for k, (name, a) in enumerate(tensors.items())}
        return OrderedDict(made)


class Written:
    """A tensor, pickled as PyTorch does."""

    def __init__(self, torch: Torch, kind: type, key: str, view: dict[str, Any]) -> None:
        self.torch, self.view = torch, view
        self.storage = Reference(("storage", kind, key, "cpu", view["count"]))

    def __reduce__(self) -> Any:
        view = self.view
        parts = (view["offset"], view["shape"], view["strides"], False, OrderedDict())
        return self.torch.functions._rebuild_tensor_v2, (self.storage, *parts)


class Reference:
    """What stands outside the pickle."""

    def __init__(self, told: Any) -> None:
        self.told = told


class Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return thing.told if isinstance(thing, Reference) else None


def legacy(path: Path, table: Any, arrays: list[np.ndarray], *, magic: int = MAGIC) -> Path:
    with path.open("wb") as stream:
        for head in (magic, 1001, {"little_endian": True}, table, [*map(str, range(len(arrays)))]):
            Pickler(stream, protocol=2).dump(head)
        for array in arrays:
            stream.write(struct.pack("<q", array.size) + array.tobytes())
    return path


def zipped(path: Path, table: Any, arrays: list[np.ndarray], *, order: bytes = b"little") -> Path:
    pickled = path.with_suffix(".pkl")
    with pickled.open("wb") as stream:
        Pickler(stream, protocol=2).dump(table)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(pickled, "archive/data.pkl")
        archive.writestr("archive/byteorder", order)
        for key, array in enumerate(arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Torch:
    return Torch(monkeypatch)


@pytest.mark.parametrize("write", [legacy, zipped])
def test_tensors_come_out_as_they_went_in(torch: Torch, tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "w.pth", torch.table(), [*TENSORS.values()])
    found = read_torch(path)
    assert list(found) == list(TENSORS)
    for name, array in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable


def test_two_tensors_may_be_parts_of_one_storage(torch: Torch, tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    across = torch.tensor("0", array, offset=1, shape=(2, 2), strides=(1, 2))
    table = {"all": torch.tensor("0", array), "across": across}
    found = read_torch(zipped(tmp_path / "w.pth", table, [array]))
    assert found["across"].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("write", [legacy, zipped])
def test_what_names_a_function_is_refused_and_nothing_is_called(
    torch: Torch, tmp_path: Path, write: Any
) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "called"),)

    path = write(tmp_path / "w.pth", {**torch.table(), "attack": Attack()}, [*TENSORS.values()])
    with pytest.raises(CorruptData, match=r"w\.pth is no table .* names posix\.mkdir, which is no"):
        read_torch(path)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        ({"shape": (3, 5)}, "does not fit its 12 numbers"),
        ({"offset": 1}, "ends at 12 of 12 numbers"),
        ({"strides": (-4, 1)}, "does not fit"),
        ({"offset": -1}, "does not fit"),
        ({"strides": (4,)}, "zip"),
        ({"shape": ("a", 4)}, "is no table"),
        ({"count": 13}, "should have 13 numbers"),
    ],
)
@pytest.mark.parametrize("write", [legacy, zipped])
def test_a_tensor_outside_its_storage_is_refused(
    torch: Torch, tmp_path: Path, write: Any, instead: dict[str, Any], reason: str
) -> None:
    array = TENSORS["weight"]
    path = write(tmp_path / "w.pth", {"w": torch.tensor("0", array, **instead)}, [array])
    with pytest.raises(CorruptData, match=reason):
        read_torch(path)


def test_other_damage_is_told(torch: Torch, tmp_path: Path) -> None:
    arrays = [*TENSORS.values()]
    path = tmp_path / "w.pth"
    cases = [
        (lambda: legacy(path, torch.table(), arrays, magic=1), "does not begin as one"),
        (lambda: legacy(path, [1, 2], []), "something else than tensors"),
        (lambda: legacy(path, {"w": Reference(("module", 1, 2, 3, 4))}, []), "no storage"),
        (lambda: zipped(path, torch.table(), arrays, order=b"big"), "byte order b'big'"),
        (lambda: zipped(path, torch.table(), arrays[:1]), "no item named 'archive/data/1'"),
        (lambda: path.write_bytes(b""), "Ran out of input"),
        (lambda: path.write_bytes(b"no pickle"), "is no table"),
    ]
    for write, reason in cases:
        write()
        with pytest.raises(CorruptData, match=reason):
            read_torch(path)
    with pytest.raises(NotFound, match=r"there is no file .*absent"):
        read_torch(tmp_path / "absent")
