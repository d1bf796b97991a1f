"""Mean average precision of boxes, by COCO's own evaluation."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

_SIDE = 1000  # COCO counts in pixels: the image's sides, for it


def average_precision(found: Mapping[str, Any], *, truth: Any) -> float:
    """The mean over classes of the average precision at an overlap of one half.

    `found` has boxes [samples, most, 4], classes and scores [samples, most] and count [samples];
    truth [samples, most, 5] class and box, the class -1 where there is none.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports to people
        known = COCO()
        known.dataset = _as_coco(truth)
        known.createIndex()
        answers = _answers(found)
        if not answers:
            return 0.0
        evaluation = COCOeval(known, known.loadRes(answers), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]  # [recall, class], all sizes
    return float(precision[precision > -1].mean())


def _as_coco(truth: Any) -> dict[str, Any]:
    boxes = [
        {
            "id": image * truth.shape[1] + place + 1,
            "image_id": image,
            "category_id": int(row[0]),
            "bbox": _coco_box(row[1:]),
            "area": float(np.prod(_coco_box(row[1:])[2:])),
            "iscrowd": 0,
        }
        for image, rows in enumerate(truth)
        for place, row in enumerate(rows)
        if row[0] >= 0
    ]
    kinds = sorted({box["category_id"] for box in boxes})
    return {
        "info": {},
        "images": [{"id": image} for image in range(len(truth))],
        "annotations": boxes,
        "categories": [{"id": kind} for kind in kinds],
    }


def _answers(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": int(found["classes"][image, place]),
            "bbox": _coco_box(found["boxes"][image, place]),
            "score": float(found["scores"][image, place]),
        }
        for image, count in enumerate(found["count"])
        for place in range(int(count))
    ]


def _coco_box(box: Any) -> list[float]:
    """Left, top, width, height."""
    top, left, bottom, right = (_SIDE * float(edge) for edge in box)
    return [left, top, right - left, bottom - top]
