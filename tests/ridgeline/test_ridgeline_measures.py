"""What a test set shows: figures computed by hand."""

import math

import numpy as np
import pytest

from ridgeline import measures
from ridgeline.average_precision import average_precision
from ridgeline.errors import InvalidInput


def test_overlaps_are_those_computed_by_hand():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]], float)
    others = np.array([[0, 0, 1, 1], [0.5, 0, 1.5, 1], [2, 2, 3, 3]], float)
    assert measures.overlap(boxes, others) == pytest.approx([1, 1 / 3, 0])
    truth = np.array([[0, 0, 1, 1]])
    assert measures.mean_overlap(np.array([[0, 1, 1, 1]]), truth) == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )


def test_a_detector_that_knows_every_box_has_the_precision_one():
    random = np.random.default_rng(4)
    corners = np.sort(random.random((30, 3, 2, 2)), axis=2).reshape(30, 3, 4)
    kinds = random.integers(-1, 10, (30, 3, 1))
    truth = np.concatenate([-np.sort(-kinds, axis=1), corners], axis=-1)  # what is none comes last
    count = (truth[..., 0] >= 0).sum(axis=1)
    found = {"boxes": truth[..., 1:], "classes": truth[..., 0], "count": count}
    found["scores"] = np.full(truth.shape[:2], 0.9)
    assert average_precision(found, truth=truth) == pytest.approx(1)
    found["classes"] = (truth[..., 0] + 1) % 10
    assert average_precision(found, truth=truth) == pytest.approx(0, abs=0.05)
    nothing = {**found, "count": np.zeros_like(count)}
    assert average_precision(nothing, truth=truth) == 0


@pytest.mark.parametrize(
    ("found", "truth", "faults"),
    [([], [1, 2], 2), ([1, 2], [], 2), ([1, 9, 2], [1, 2], 1), ([1, 3], [1, 2], 1), ([4], [4], 0)],
)
def test_faults_are_the_fewest_changes(found, truth, faults):
    assert measures.edits(found, truth) == faults


def test_localization_tells_right_classes_and_the_overlap_of_boxes():
    answers = {
        "probabilities": np.array([[0.1, 0.9], [0.8, 0.2]]),
        "box": np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]]),
    }
    truth = {"label": np.array([[1, 0, 0, 1, 1], [1, 0, 0, 1, 1]], float)}
    found = measures.measure("localization", answers=answers, truth=truth)
    assert found == {"accuracy": 0.5, "mean_iou": pytest.approx(0.75)}


def test_sequences_are_right_as_a_whole_and_words_one_by_one():
    label = np.array([[1, 2, -1], [3, -1, -1]])
    told = np.array([[1, 2, -1], [3, 3, -1]])
    exact = measures.measure("translation", answers={"digits": told}, truth={"label": label})
    assert exact == {"exact": 0.5}
    spoken = measures.measure("speech", answers={"words": told}, truth={"label": label})
    assert spoken == {"word_error": pytest.approx(1 / 3)}


def test_a_model_that_knows_the_grammar_has_no_excess_and_one_that_guesses_has_some():
    truth = {"label": np.array([[0, -1], [1, 0]]), "probability": np.array([0.5, 0.5])}
    knows = np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [1.0, 0.0]]])
    found = measures.measure("language", answers={"probabilities": knows}, truth=truth)
    assert found == {"excess_entropy": pytest.approx(0, abs=1e-12)}
    guesses = np.full((2, 2, 2), 0.5)
    found = measures.measure("language", answers={"probabilities": guesses}, truth=truth)
    assert found == {"excess_entropy": pytest.approx(0.5)}  # 3 words are guessed in 2 sentences


def test_masks_are_measured_by_class():
    answers, truth = {"mask": np.array([[[0, 1]]])}, {"label": np.array([[[0, 1]]])}
    assert measures.measure("segmentation", answers=answers, truth=truth) == {"mean_iou": 1.0}


def test_every_figure_becomes_a_share_of_the_best_possible_one():
    assert measures.quality("mean_iou", 0.8) == 0.8
    assert measures.quality("word_error", 0.02) == pytest.approx(0.98)
    assert measures.quality("excess_entropy", 0.25) == pytest.approx(0.8)
    assert math.isnan(measures.quality("exact", math.nan))


@pytest.mark.parametrize(
    ("task", "answers", "truth"),
    [
        ("speech", {"digits": np.zeros((1, 2))}, {"label": np.zeros((1, 2))}),
        ("translation", {"digits": np.zeros((1, 2))}, {}),
        ("segmentation", {"mask": np.zeros((2, 4, 4))}, {"label": np.zeros((2, 3, 3))}),
        ("filtering", {}, {}),
    ],
)
def test_answers_of_another_task_are_refused(task, answers, truth):
    with pytest.raises(InvalidInput, match=f"not those of the task '{task}', one of detection,"):
        measures.measure(task, answers=answers, truth=truth)
