"""1,797 digits of 8 x 8 pixels that come with scikit-learn, at the size of MNIST's.

Other people's handwriting than MNIST's, reduced from bitmaps of 32 x 32 to counts from 0 to 16 (E.
Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998, CC BY 4.0). Here they are
enlarged to 20 x 20 with a border around, as MNIST's digits stand in their images, so that a network
for MNIST takes them.
"""

import numpy as np
from PIL import Image

from ridgeline.errors import MissingData
from training.datasets.samples import DataSet, Samples

CLASSES = tuple("0123456789")
_SIDE, _BORDER = 20, 6  # pixels: 20 + 2 * 6 = 32
_TRAINING = 1000  # the first ones; writers come in blocks, so those of the rest are mostly others
_LEVELS = 16


def load() -> DataSet:
    """Images float32 [samples, 32, 32, 1] in [0, 1], 0 is the background: 1,000 and 797 of them.

    Raises MissingData where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingData(
            "the digits are in the package scikit-learn: pip install '.[transfer]'"
        ) from None
    found = load_digits()
    enlarged = [
        Image.fromarray(image.astype(np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        for image in found.images
    ]
    border = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    images = np.pad(np.stack([np.asarray(image) for image in enlarged]), border)
    inputs = (images / np.float32(_LEVELS))[..., np.newaxis].astype(np.float32)
    labels = found.target.astype(np.int64)
    return DataSet(
        training=Samples(inputs[:_TRAINING], labels[:_TRAINING]),
        test=Samples(inputs[_TRAINING:], labels[_TRAINING:]),
        classes=CLASSES,
    )
