"""CIFAR-10: 50,000 training and 10,000 test photos of 32 x 32 pixels, of ten kinds of things.

One archive of 160 MB in either of two forms: `cifar-10-binary.tar.gz`, which is downloaded, has
batches of records of one byte for the class and 3,072 for red, green and blue, each row by row;
`cifar-10-python.tar.gz` has the same as pickled tables of an array and a list. Krizhevsky: Learning
Multiple Layers of Features from Tiny Images, 2009.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridgeline.errors import CorruptData
from training.datasets import archives
from training.datasets.archives import Archive
from training.datasets.samples import DataSet, Preprocessing, Samples

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_URL = "https://www.cs.toronto.edu/~kriz/"
BINARY, PICKLED = (
    Archive(name, _URL + name, md5)
    for name, md5 in (
        ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
        ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    )
)
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE  # numbers of an image
_TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
# All that a pickled array of numbers names, under numpy's old and new module names.
_NEEDED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
}
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load(*, folder: Path | None = None) -> DataSet:
    """Read the data set: images float32 [samples, 32, 32, 3] in [0, 1].

    Raises MissingData where it is neither here nor to be had, CorruptData for a damaged archive.
    """
    [path] = archives.find([BINARY], data_set="cifar10", folder=folder, instead=[PICKLED])
    return DataSet(
        training=_samples(path, names=_TRAINING),
        test=_samples(path, names=_TEST),
        classes=CLASSES,
        preprocessing=Preprocessing(mean=0.0, std=255.0),
    )


def _samples(path: Path, *, names: Sequence[str]) -> Samples:
    pickled = path.name == PICKLED.name
    files = _members(path, names=names if pickled else [f"{name}.bin" for name in names])
    read = unpickled if pickled else parse_records
    batches = [read(data, source=f"{path}: {name}") for name, data in files.items()]
    levels = np.concatenate([images for images, _ in batches]).reshape(-1, 3, _SIDE, _SIDE)
    labels = np.concatenate([labels for _, labels in batches])
    return Samples(levels.transpose(0, 2, 3, 1).astype(np.float32) / np.float32(255), labels)


def parse_records(data: bytes, *, source: str) -> Batch:
    """The images [samples, 3072] and classes of a binary batch. Raises CorruptData."""
    if not data or len(data) % (1 + _PIXELS):
        raise CorruptData(f"{source} must hold records of {1 + _PIXELS} bytes, has {len(data)}")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], _checked(records[:, 0].astype(np.int64), source=source)


def unpickled(data: bytes, *, source: str) -> Batch:
    """The same of a pickled batch, of which nothing is run but numpy's array. Raises CorruptData.

    It was written by Python 2: its strings are bytes here.
    """
    try:
        table = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        images, labels = table[b"data"], np.asarray(table[b"labels"], np.int64)
    except CorruptData as error:
        raise CorruptData(f"{source}: {error}") from error
    except Exception as error:  # whatever a pickle machine may stumble over
        raise CorruptData(f"{source} is no pickled batch: {error!r}") from error
    right = isinstance(images, np.ndarray) and images.dtype == np.uint8
    if not right or images.shape != (len(labels), _PIXELS):
        raise CorruptData(f"{source} must hold bytes [samples, {_PIXELS}], each with a label")
    return images, _checked(labels, source=source)


class _Unpickler(pickle.Unpickler):
    """Knows what an array of numbers needs, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of that name. Raises CorruptData."""
        if (module, name) not in _NEEDED:
            raise CorruptData(f"a batch has no use for {module}.{name}")
        return super().find_class(module, name)


def _checked(labels: NDArray[np.int64], *, source: str) -> NDArray[np.int64]:
    if labels.ndim != 1 or not ((labels >= 0) & (labels < len(CLASSES))).all():
        raise CorruptData(f"{source} must have classes from 0 to {len(CLASSES) - 1}")
    return labels


def _members(path: Path, *, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of these files of the archive, in any folder; nothing is unpacked to disk."""
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in names and member.isfile():
                    content = archive.extractfile(member)
                    found[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise CorruptData(f"{path} must be a whole tar.gz archive, but: {error}") from error
    if missing := [name for name in names if name not in found]:
        raise CorruptData(f"{path} lacks {', '.join(missing)}")
    return {name: found[name] for name in names}
