"""Digits on a canvas: real MNIST digits, scaled, placed anywhere, among clutter.

Where each digit lies is known exactly, which gives boxes for localization and detection and masks
for segmentation. Digits for testing come from MNIST's test set. The same seed draws the same
canvases, and other seeds as many others as training may ask for.

    canvas_single  one digit  labels float32 [5]: class, top, left, bottom, right
    canvas_boxes   1 to 3     labels float32 [3, 5]: the same for each; class -1 where there is none
    canvas_masks   1 to 3     labels uint8 [48, 48]: 0 for nothing, 1 + class on a digit

Boxes are shares of the canvas' side and touch the outermost pixels of their digit.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.datasets import mnist
from training.datasets.samples import DataSet, Samples

SIZE = 48
MOST_DIGITS = 3
_SIDES = (18, 30)  # pixels of the square that a digit's 28 x 28 image is scaled to
_STROKES = (2, 5)  # pieces of clutter
_INK = 0.2  # brighter than this belongs to the digit
_TRIES = 20
Image = NDArray[np.float32]
# What a canvas holds: the image, a row (class, top, left, bottom, right) for each digit, the mask.
Scene = tuple[Image, NDArray[np.float32], NDArray[np.uint8]]


def load_single(*, training: int = 6_000, test: int = 2_000) -> DataSet:
    """One digit on each canvas."""
    return _load(training, test, most=1, label=lambda scene: scene[1][0])


def load_boxes(*, training: int = 12_000, test: int = 2_000) -> DataSet:
    """One to three digits, labelled by boxes."""
    return _load(training, test, most=MOST_DIGITS, label=_padded)


def load_masks(*, training: int = 3_000, test: int = 1_000) -> DataSet:
    """One to three digits, labelled pixel by pixel."""
    return _load(training, test, most=MOST_DIGITS, label=lambda scene: scene[2])


def draw(digits: Samples, *, count: int, most: int, seed: int | Sequence[int]) -> list[Scene]:
    """That many canvases with one to `most` digits each."""
    random = np.random.default_rng(seed)
    return [_scene(digits, most=most, random=random) for _ in range(count)]


def _load(
    training: int, test: int, *, most: int, label: Callable[[Scene], NDArray[np.generic]]
) -> DataSet:
    digits = mnist.load()

    def samples(source: Samples, count: int, seed: int | Sequence[int]) -> Samples:
        scenes = draw(source, count=count, most=most, seed=seed)
        return Samples(
            inputs=np.stack([scene[0] for scene in scenes])[..., np.newaxis],
            labels=np.stack([label(scene) for scene in scenes]),
        )

    return DataSet(
        training=samples(digits.training, training, 1),
        test=samples(digits.test, test, 2),
        classes=digits.classes,
        redraw=lambda count, seed: samples(digits.training, count, (3, seed)),
    )


def _padded(scene: Scene) -> NDArray[np.float32]:
    rows = np.zeros((MOST_DIGITS, 5), np.float32)
    rows[:, 0] = -1
    rows[: len(scene[1])] = scene[1]
    return rows


def _scene(digits: Samples, *, most: int, random: np.random.Generator) -> Scene:
    image = _clutter(digits, random=random)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    taken = np.zeros((SIZE, SIZE), bool)
    rows = []
    for _ in range(int(random.integers(1, most + 1))):
        index = int(random.integers(len(digits)))
        side = int(random.integers(_SIDES[0], _SIDES[1] + 1))
        digit = _trimmed(resize(digits.inputs[index, 2:-2, 2:-2, 0], side=side))
        place = _free_place(taken, size=digit.shape, random=random)
        if place is None:
            continue  # the first digit always finds one
        (top, left), (height, width) = place, digit.shape
        where = slice(top, top + height), slice(left, left + width)
        ink = digit > _INK
        image[where] = np.maximum(np.where(ink, 0, image[where]), digit)
        mask[where][ink] = 1 + digits.labels[index]
        taken[where] = True
        edges = np.array([top, left, top + height, left + width]) / SIZE
        rows.append([digits.labels[index], *edges])
    return image, np.asarray(rows, np.float32), mask


def _free_place(
    taken: NDArray[np.bool_], *, size: tuple[int, ...], random: np.random.Generator
) -> tuple[int, int] | None:
    """The top left corner of a rectangle that touches nothing taken, if one is found."""
    for _ in range(_TRIES):
        top, left = (int(random.integers(0, SIZE - extent + 1)) for extent in size)
        if not taken[top : top + size[0], left : left + size[1]].any():
            return top, left
    return None


def _clutter(digits: Samples, *, random: np.random.Generator) -> Image:
    """Small dim pieces of digits: edges and curves like the digits' own, but nothing to read."""
    image = random.uniform(0, 0.08, (SIZE, SIZE)).astype(np.float32)
    for _ in range(int(random.integers(_STROKES[0], _STROKES[1] + 1))):
        index = int(random.integers(len(digits)))
        row, column = random.integers(6, 20, 2)
        piece = digits.inputs[index, row : row + 7, column : column + 7, 0]
        top, left = random.integers(0, SIZE - 7, 2)
        where = slice(top, top + 7), slice(left, left + 7)
        image[where] = np.maximum(image[where], random.uniform(0.3, 0.7) * piece)
    return image


def _trimmed(digit: Image) -> Image:
    """The digit without the empty rows and columns around it."""
    rows, columns = np.nonzero(digit > _INK)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def resize(image: Image, *, side: int) -> Image:
    """A square image at another side, each pixel mixed from its four nearest."""
    places = (np.arange(side) + 0.5) * len(image) / side - 0.5
    low = np.clip(np.floor(places).astype(int), 0, len(image) - 2)
    share = np.clip(places - low, 0, 1).astype(np.float32)
    rows = image[low] * (1 - share)[:, None] + image[low + 1] * share[:, None]
    mixed: Image = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return mixed
