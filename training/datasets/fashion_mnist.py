"""Fashion-MNIST: 60,000 training and 10,000 test images of ten kinds of clothes, like MNIST's.

Four files in MNIST's format, 30 MB, under MIT's licence. Xiao, Rasul, Vollgraf: Fashion-MNIST: a
Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017.
"""

from pathlib import Path

from training.datasets import archives, mnist
from training.datasets.archives import Archive
from training.datasets.samples import DataSet, Samples

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
ARCHIVES = tuple(
    Archive(name, _URL + name, md5)
    for name, md5 in (
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
)


def load(*, folder: Path | None = None) -> DataSet:
    """Read the data set: images float32 [samples, 32, 32, 1] in [0, 1], 0 is the background.

    Raises MissingData where it is neither here nor to be had, CorruptData for a damaged file.
    """
    paths = archives.find(ARCHIVES, data_set="fashion_mnist", folder=folder)
    return DataSet(
        training=_samples(*paths[:2]),
        test=_samples(*paths[2:]),
        classes=CLASSES,
    )


def _samples(images: Path, labels: Path) -> Samples:
    return mnist.samples(
        mnist.parse_idx(mnist.unpacked(images), source=str(images)),
        labels=mnist.parse_idx(mnist.unpacked(labels), source=str(labels)),
    )
