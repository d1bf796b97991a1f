"""A folder of images by class: PNG and JPEG files, each class in a folder that bears its name.

    FOLDER/cat/1.jpg  FOLDER/cat/2.png  FOLDER/dog/1.jpg ...

A share of each class is kept for the test set. Which images those are is decided by their contents,
so they stay the same in every run, whatever the files are called, and nearly the same when others
are added. Who has a split already has `FOLDER/train/<class>/` and `FOLDER/test/<class>/` instead.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ridgeline.errors import CorruptData, InvalidInput, MissingData
from training.datasets.samples import DataSet, Preprocessing, Samples

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_FORMATS = ("PNG", "JPEG")
_MOST_PIXELS = 25_000_000  # of a file: what says it has more is not unpacked
_MOST_BYTES = 8 << 30  # of all images as the network takes them
_SPLIT = ("train", "test")
_log = logging.getLogger(__name__)
Files = Mapping[str, Sequence[Path]]  # by class


@dataclass(frozen=True)
class ImageSettings:
    """`[images]`: how files become the network's input, and how many are kept for the test set.

    The middle square of each image is resized to `side` x `side` pixels, of `channels` 1 (grey) or
    3 (colours); then levels from 0 to 255 less `mean`, over `std`.
    """

    side: int = 32
    channels: int = 3
    mean: float = 0.0
    std: float = 255.0
    test_share: float = 0.2

    def __post_init__(self) -> None:
        rules = {
            "side": (1 <= self.side <= 1024, "in [1, 1024]"),
            "channels": (self.channels in (1, 3), "1 or 3"),
            "mean": (0 <= self.mean <= 255, "in [0, 255]"),
            "std": (0 < self.std <= 255, "in (0, 255]"),
            "test_share": (0 < self.test_share <= 0.5, "in (0, 0.5]"),
        }
        for key, (holds, expected) in rules.items():
            if not holds:
                raise InvalidInput(
                    f"images.{key} must be {expected}, received {getattr(self, key)!r}"
                )

    @property
    def preprocessing(self) -> Preprocessing:
        """The same in the words of `ridgeline pipeline`."""
        return Preprocessing(mean=self.mean, std=self.std, filter="bilinear")


def load(*, folder: Path | None = None, settings: ImageSettings | None = None) -> DataSet:
    """Read the folder: images float32 [samples, side, side, channels], classes sorted by name.

    Raises MissingData without a folder, InvalidInput for one that holds no classes, CorruptData
    naming a file that is no image.
    """
    settings = settings or ImageSettings()
    if folder is None:
        raise MissingData(
            "your own images are needed: --data FOLDER, with a folder for each class "
            "(FOLDER/<class>/*.png or *.jpg)"
        )
    training, test = _split(folder, settings=settings)
    count = sum(len(files) for part in (training, test) for files in part.values())
    needed_bytes = count * settings.side**2 * settings.channels * 4
    if needed_bytes > _MOST_BYTES:
        raise InvalidInput(
            f"{count} images of {settings.side} x {settings.side} x {settings.channels} take "
            f"{needed_bytes} bytes, at most {_MOST_BYTES} are held; take a smaller side"
        )
    classes = tuple(training)
    return DataSet(
        training=_samples(training, settings=settings),
        test=_samples(test, settings=settings),
        classes=classes,
        preprocessing=settings.preprocessing,
    )


def tensor(path: Path, *, settings: ImageSettings) -> NDArray[np.float32]:
    """What the network sees of a file, float32 [side, side, channels]. Raises CorruptData.

    Photos are turned upright as their EXIF data say, transparent images lie on white.
    """
    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise ValueError(f"{file.width} x {file.height} pixels are too many")
            image = _in_channels(ImageOps.exif_transpose(file), settings.channels)
    except Exception as error:  # Pillow raises many kinds for malformed files
        raise CorruptData(f"{path} cannot be read as a PNG or JPEG image: {error}") from error
    size = (settings.side, settings.side)
    fitted = ImageOps.fit(image, size, method=Image.Resampling.BILINEAR)
    levels = np.asarray(fitted, np.float32).reshape(*size, settings.channels)
    return (levels - np.float32(settings.mean)) / np.float32(settings.std)


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    """Eight bits a channel; what is transparent shows white."""
    if image.mode.startswith("I"):  # sixteen bits of grey
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _samples(files: Files, *, settings: ImageSettings) -> Samples:
    paths = [path for group in files.values() for path in group]
    counts = [len(group) for group in files.values()]
    inputs = np.empty((len(paths), settings.side, settings.side, settings.channels), np.float32)
    for place, path in enumerate(paths):
        inputs[place] = tensor(path, settings=settings)
    return Samples(inputs, np.repeat(np.arange(len(counts)), counts))


def _split(folder: Path, *, settings: ImageSettings) -> tuple[Files, Files]:
    """Files to train with and to test with, by class; each class has both."""
    if all((folder / part).is_dir() for part in _SPLIT):
        training, test = (_by_class(folder / part) for part in _SPLIT)
        if list(training) != list(test):
            raise InvalidInput(
                f"{folder}/train has the classes {list(training)}, {folder}/test {list(test)}"
            )
        return training, test
    training, test = {}, {}
    for name, files in _by_class(folder).items():
        if len(files) < 2:
            raise InvalidInput(f"class {name!r} needs at least two images, one to test with")
        count = max(1, round(settings.test_share * len(files)))
        test[name], training[name] = files[:count], files[count:]
    return training, test


def _by_class(folder: Path) -> Files:
    """The images of each class, without copies, in an order that their contents decide."""
    if not folder.is_dir():
        raise MissingData(f"there is no folder {folder}")
    places = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    seen: dict[str, Path] = {}
    found = {}
    for place in places:
        by_digest = {}
        for path in _images(place):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            other = seen.setdefault(digest, path)
            if other.parent != path.parent:
                raise InvalidInput(f"{path} is the same image as {other}, of another class")
            by_digest[digest] = other
        if by_digest:
            found[place.name] = [path for _, path in sorted(by_digest.items())]
    if len(found) < 2:
        raise InvalidInput(
            f"{folder} must hold a folder of PNG or JPEG files for each of at least two classes, "
            f"received {list(found) or 'none'}"
        )
    return found


def _images(place: Path) -> list[Path]:
    files = sorted(path for path in place.iterdir() if path.is_file() and path.name[0] != ".")
    images = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if len(images) < len(files):
        _log.warning("%s: %d files are no PNG or JPEG", place, len(files) - len(images))
    return images
