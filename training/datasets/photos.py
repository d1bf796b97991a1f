"""Three photos that come with Python packages, for networks that tell the classes of ImageNet.

A temple in China and a flower come with scikit-learn, a naval officer (Grace Hopper, by the US
Navy) with matplotlib: too few for a figure, enough to see that weights, preprocessing and names
belong together. Nothing can be trained with them. Their labels are the nearest that ImageNet has:
the temple's tower stands in the Summer Palace, and the flower, a dahlia, has no class of its own.

`imagenet_classes.txt` has the 1,000 names in the order that every published network has them, one a
line: the first word of WordNet for each class, from the package imagenet-classes 0.2.1 (MIT). Two
cranes and two maillots are told apart in brackets.
"""

import importlib.resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ridgeline.errors import MissingData
from training.datasets.samples import DataSet, Preprocessing, Samples

CLASSES_FILE = Path(__file__).parent / "imagenet_classes.txt"
SIDE = 224  # pixels

# Of the official EfficientNet-Lite: evaluation crops 224 / (224 + 32), resizes bicubically, and
# takes mean 127 and deviation 128 (Tan, Le: efficientnet/lite in TensorFlow's TPU models, 2020).
PREPROCESSING = Preprocessing(mean=127.0, std=128.0, crop_share=0.875)

_PHOTOS = {
    ("sklearn.datasets.images", "china.jpg"): "palace",
    ("sklearn.datasets.images", "flower.jpg"): "daisy",
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"): "military uniform",
}


def load() -> DataSet:
    """The photos as the test set, float32 [3, 224, 224, 3] in [-1, 1]; no training samples.

    Raises MissingData where a package is missing.
    """
    classes = class_names()
    inputs = np.stack([preprocess(image) for image in images().values()])
    labels = np.array([classes.index(name) for name in _PHOTOS.values()])
    nothing = Samples(inputs[:0], labels[:0])
    return DataSet(nothing, Samples(inputs, labels), classes, PREPROCESSING)


def class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in their order."""
    return tuple(CLASSES_FILE.read_text(encoding="utf-8").splitlines())


def images() -> dict[str, Path]:
    """The files of the photos, by name. Raises MissingData where a package is missing."""
    found = {}
    for package, file in _PHOTOS:
        try:
            path = Path(str(importlib.resources.files(package).joinpath(file)))
        except ModuleNotFoundError:
            path = Path(package) / file
        if not path.is_file():
            raise MissingData(
                f"there is no photo {file} of the package {package.split('.')[0]}; "
                "pip install '.[transfer]' brings scikit-learn"
            )
        found[path.stem] = path
    return found


def preprocess(
    path: Path, *, side: int = SIDE, how: Preprocessing = PREPROCESSING
) -> NDArray[np.float32]:
    """A photo as an input: float32 [side, side, 3]."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    filter = Image.Resampling[how.filter.upper()]
    margin = (1 - how.crop_share) / 2
    square = ImageOps.fit(image, (side, side), method=filter, bleed=margin)
    levels: NDArray[np.float32] = np.asarray(square, dtype=np.float32)
    return (levels - np.float32(how.mean)) / np.float32(how.std)
