"""MNIST: 60,000 training and 10,000 test images of handwritten digits, shipped in `mnist/`.

The files are in the original IDX format, gzip. IDX: two zero bytes, one byte for the element type
(8: unsigned byte), one for the number of axes, the sizes as big-endian 32-bit integers, the data.
"""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ridgeline.errors import CorruptData, NotFound
from training.datasets.samples import DataSet, Samples

FOLDER = Path(__file__).parent / "mnist"
CLASSES = tuple("0123456789")

# MD5 of the unpacked files, as published with the data set. It guards against damage, not malice.
_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_MAGIC = bytes([0, 0, 8])  # two zero bytes, then the element type: unsigned byte
_IMAGE = (28, 28)
_BORDER = 2  # pixels on each side: 28 + 2 * 2 = 32, the input size of LeNet-5


def load(*, folder: Path = FOLDER) -> DataSet:
    """Read the data set: images float32 [samples, 32, 32, 1] in [0, 1], 0 is the background.

    Raises NotFound for a missing file, CorruptData for one that is damaged.
    """
    return DataSet(
        training=_samples(folder, prefix="train"),
        test=_samples(folder, prefix="t10k"),
        classes=CLASSES,
    )


def parse_idx(data: bytes, *, source: str) -> NDArray[np.uint8]:
    """The array in an unpacked IDX file of unsigned bytes. Raises CorruptData naming `source`."""
    if len(data) < 4 or data[:3] != _MAGIC:
        raise CorruptData(
            f"{source} must begin with {_MAGIC.hex(' ')}, as an IDX file of unsigned bytes does, "
            f"received {data[:3].hex(' ') or 'nothing'}"
        )
    header_bytes = 4 + 4 * data[3]
    sizes = np.frombuffer(data[4:header_bytes].ljust(header_bytes - 4, b"\0"), dtype=">u4")
    shape = tuple(int(size) for size in sizes)
    expected_bytes = header_bytes + math.prod(shape)
    if len(data) < header_bytes or len(data) != expected_bytes:
        raise CorruptData(
            f"{source} must hold {expected_bytes} bytes for {shape}, received {len(data)}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header_bytes).reshape(shape)


def samples(images: NDArray[np.uint8], /, *, labels: NDArray[np.uint8]) -> Samples:
    """Images [samples, 28, 28] as networks take them: float32, with a channel and a border.

    Raises CorruptData where they have another shape.
    """
    if images.shape[1:] != _IMAGE or labels.shape != images.shape[:1]:
        raise CorruptData(
            f"images must be [samples, 28, 28] with a label each, received {list(images.shape)} "
            f"and {list(labels.shape)}"
        )
    border = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    shades = np.pad(images, border)[..., np.newaxis].astype(np.float32) / np.float32(255)
    return Samples(inputs=shades, labels=labels.astype(np.int64))


def unpacked(path: Path) -> bytes:
    """What a gzip file holds. Raises CorruptData where it is damaged."""
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptData(f"{path} must be a whole gzip file, but: {error}") from error


def _samples(folder: Path, *, prefix: str) -> Samples:
    images = _read(folder / f"{prefix}-images-idx3-ubyte.gz")
    return samples(images, labels=_read(folder / f"{prefix}-labels-idx1-ubyte.gz"))


def _read(path: Path) -> NDArray[np.uint8]:
    """Unpack one of the shipped files, once its digest is that of the published one."""
    try:
        data = unpacked(path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}, which belongs to MNIST") from None
    expected, found = _MD5[path.stem], hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise CorruptData(
            f"{path} must unpack to data with the MD5 {expected}, "
            f"received {len(data)} bytes with {found}"
        )
    return parse_idx(data, source=str(path))
