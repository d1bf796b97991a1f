"""What a test set shows of a network: figures from its answers and the truth, for each task.

Training measures a network by these, export the graph that came of it and what was made of that at
a lower precision. Answers are arrays by output name, one row a sample; what a task's truth holds,
its function says. Classification counts right answers instead, see `export.parity.accuracy`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridgeline.average_precision import average_precision
from ridgeline.errors import InvalidInput

Arrays = Mapping[str, NDArray[Any]]

AT_MOST = frozenset({"excess_entropy", "word_error"})  # the lower, the better
NOTHING = -1  # behind the last word of a sequence


def measure(task: str, *, answers: Arrays, truth: Arrays) -> dict[str, float]:
    """The figures of one of `TASKS`. Raises InvalidInput where answers and truth do not fit."""
    try:
        return TASKS[task](answers, truth)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InvalidInput(
            f"answers {_shapes(answers)} and truth {_shapes(truth)} are not those of the task "
            f"{task!r}, one of {', '.join(TASKS)}: {error!r}"
        ) from error


def quality(name: str, value: float, /) -> float:
    """A figure as a share of the best possible one, so that shares of it can be asked for.

    Faults for each word become the words without one, the excess of a cross-entropy the share that
    the least possible one has in it.
    """
    if name == "word_error":
        return 1 - value
    return 1 / (1 + value) if name == "excess_entropy" else value


def localization(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """`accuracy` of the class, and `mean_iou`, the mean overlap of the boxes.

    Truth: `label` [samples, 5], the class and the box (top, left, bottom, right).
    """
    label = truth["label"]
    right = answers["probabilities"].argmax(axis=1) == label[:, 0]
    overlaps = overlap(answers["box"], label[:, 1:])
    return {"accuracy": float(right.mean()), "mean_iou": float(overlaps.mean())}


def segmentation(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """`mean_iou`: over the classes, nothing included, of their pixels in the whole test set.

    Truth: `label` [samples, rows, columns], the class of each pixel.
    """
    return {"mean_iou": mean_overlap(answers["mask"], truth["label"])}


def detection(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """`mean_average_precision` at an overlap of one half, as COCO evaluates it (pycocotools).

    Truth: `label` [samples, most, 5], class and box, the class -1 where there is none.
    """
    return {"mean_average_precision": average_precision(answers, truth=truth["label"])}


def language(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """`excess_entropy`: the expected cross-entropy of a sentence over its least value, less one.

    Truth: every sentence that there is, `label` [sentences, places] the next words, -1 behind the
    end, and `probability` [sentences] how often each comes.
    """
    label, often = truth["label"], truth["probability"]
    places = np.maximum(label, 0)[..., None]
    chosen = np.take_along_axis(answers["probabilities"], places, axis=-1)[..., 0]
    nats = -np.where(label != NOTHING, np.log(np.maximum(chosen, 1e-30)), 0).sum(axis=1)
    least = -float(often @ np.log(often))
    return {"excess_entropy": float(often @ nats) / least - 1}


def translation(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """`exact`: the share of numbers with every digit right.

    Truth: `label` [samples, places] the digits, -1 behind the last.
    """
    return {"exact": float((answers["digits"] == truth["label"]).all(axis=1).mean())}


def speech(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """`word_error`: words wrong, missing or too many, for each word that was spoken.

    Truth: `label` [samples, most words], -1 behind the last.
    """
    label = truth["label"]
    faults = sum(
        edits(row[row != NOTHING].tolist(), spoken[spoken != NOTHING].tolist())
        for row, spoken in zip(answers["words"], label, strict=True)
    )
    return {"word_error": faults / int((label != NOTHING).sum())}


TASKS: dict[str, Callable[[Arrays, Arrays], dict[str, float]]] = {
    "detection": detection,
    "language": language,
    "localization": localization,
    "segmentation": segmentation,
    "speech": speech,
    "translation": translation,
}


def overlap(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of boxes [..., 4] with others, each with its partner."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(box[..., 2:] - box[..., :2], 0, None).prod(axis=-1) for box in (boxes, others)]
    shares: NDArray[np.floating] = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    return shares


def mean_overlap(masks: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Intersection over union of each class that occurs, and their mean."""
    classes = np.unique(np.concatenate([np.unique(masks), np.unique(truth)]))
    shares = [
        ((masks == kind) & (truth == kind)).sum() / ((masks == kind) | (truth == kind)).sum()
        for kind in classes
    ]
    return float(np.mean(shares))


def edits(found: list[int], truth: list[int]) -> int:
    """The least number of words to change, add or take away (Levenshtein)."""
    row = list(range(len(truth) + 1))
    for place, word in enumerate(found, start=1):
        before, row[0] = row[0], place
        for other, wanted in enumerate(truth, start=1):
            best = min(row[other] + 1, row[other - 1] + 1, before + (word != wanted))
            before, row[other] = row[other], best
    return row[-1]


def _shapes(arrays: Arrays) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in arrays.items()}
