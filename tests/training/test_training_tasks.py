"""Every task: a tiny run of its recipe, what it serves, and its measures by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ridgeline.errors import InvalidInput
from ridgeline.measures import measure
from training import artifact, datasets, tasks, zoo
from training import recipe as recipes
from training.datasets import DataSet, canvas, grammar, number_words, spoken_digits
from training.fit import Outcome, fit
from training.tasks import detection, speech, translation

FEW: dict[str, Callable[[], DataSet]] = {
    "canvas_boxes": lambda: canvas.load_boxes(training=80, test=20),
    "canvas_masks": lambda: canvas.load_masks(training=80, test=20),
    "canvas_single": lambda: canvas.load_single(training=80, test=20),
    "number_words": lambda: number_words.load(training=200, test=20),
    "spoken_digits": lambda: spoken_digits.load(training=40, test=10),
}


@pytest.fixture
def tiny(
    recipe: Callable[..., recipes.Recipe], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """One epoch of a network at a task, over a few samples."""

    def run(model: str, *, task: str, dataset: str) -> Outcome:
        data = FEW[dataset]()
        data = replace(data, test=data.test.take(np.arange(min(len(data.test), 20))))
        monkeypatch.setattr(datasets, "load", lambda _name: data)
        optimizer = recipes.Optimizer(name="adam", learning_rate=0.001)
        names = {"model": model, "task": task, "dataset": dataset}
        return fit(
            recipe(**names, epochs=1, batch_size=20, validation_samples=10, optimizer=optimizer)
        )

    return run


@pytest.mark.parametrize(
    ("model", "task", "dataset", "measures", "served"),
    [
        (
            "localizer",
            "localization",
            "canvas_single",
            {"accuracy", "mean_iou"},
            {"box": (4,), "probabilities": (10,)},
        ),
        ("unet", "segmentation", "canvas_masks", {"mean_iou"}, {"mask": (48, 48)}),
        (
            "detector",
            "detection",
            "canvas_boxes",
            {"mean_average_precision"},
            {"boxes": (8, 4), "scores": (8,), "classes": (8,), "count": ()},
        ),
        ("translator_small", "translation", "number_words", {"exact"}, {"digits": (7,)}),
        ("deepspeech_small", "speech", "spoken_digits", {"word_error"}, {"words": (40,)}),
    ],
)
def test_a_tiny_run_learns_and_is_saved_as_it_is_served(
    model: str,
    task: str,
    dataset: str,
    measures: set[str],
    served: dict[str, tuple[int, ...]],
    tiny: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    outcome = tiny(model, task=task, dataset=dataset)
    assert math.isfinite(outcome.curve[-1].val_loss)
    assert set(outcome.measures) == measures
    artifact.save_network(outcome.network, folder=tmp_path / "saved")
    signature = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    found = {name: tuple(tensor.shape[1:]) for name, tensor in signature.structured_outputs.items()}
    assert found == served
    inputs = tasks.find(task).served_inputs(outcome.test)
    answers = signature(**{name: tf.constant(array) for name, array in inputs.items()})
    told = {name: answer.numpy() for name, answer in answers.items()}
    truth = tasks.find(task).truth(outcome.test)
    assert measure(task, answers=told, truth=truth) == pytest.approx(dict(outcome.measures))


def test_the_artifact_of_a_task_without_labels_has_its_truth(
    recipe: Callable[..., recipes.Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = replace(grammar.load(), training=grammar.load().test)
    monkeypatch.setattr(datasets, "load", lambda _name: data)
    names = {"model": "lstm_language", "task": "language", "dataset": "grammar"}
    required = recipes.Required(excess_entropy=0.5)
    run = recipe(**names, epochs=1, validation_samples=10, required=required)
    outcome = replace(fit(run), measures={"accuracy": 1.0, "excess_entropy": 0.1})
    artifact.write(outcome, recipe=run, output=tmp_path)
    with np.load(tmp_path / "lstm_language" / "truth.npz") as truth:
        assert set(truth) == {"label", "probability"}
        assert truth["probability"].sum() == pytest.approx(1)
    with np.load(tmp_path / "lstm_language" / "evaluation.npz") as inputs:
        assert set(inputs) == {"words"}


def test_the_fixed_filter_is_exact_without_any_training(
    recipe: Callable[..., recipes.Recipe], few_digits: DataSet
) -> None:
    outcome = fit(recipe(model="vertical_edges", task="filtering", epochs=0))
    assert outcome.measures == {"exact": 1.0}
    assert outcome.curve == ()
    assert len(few_digits.test) == len(outcome.test)


def test_a_model_that_knows_the_grammar_reaches_its_entropy() -> None:
    class Knowing:
        """Answers the true chance of each next word, from the sentences themselves."""

        def predict(self, words: np.ndarray, **_: object) -> np.ndarray:
            chances = np.zeros((*words.shape, len(grammar.WORDS)))
            weights, test = grammar.probabilities(), grammar.load().test
            for row, sentence in enumerate(words):
                for place in range(words.shape[1]):
                    same = (test.inputs[:, : place + 1] == sentence[: place + 1]).all(axis=1)
                    same &= test.labels[:, place] != grammar.NOTHING
                    np.add.at(chances[row, place], test.labels[same, place], weights[same])
            return chances / np.maximum(chances.sum(axis=-1, keepdims=True), 1e-30)

    task = tasks.find("language")
    measured = task.measure(Knowing(), test=grammar.load().test)  # type: ignore[arg-type]
    assert measured["excess_entropy"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "model", "dataset"),
    [
        ("classification", "lenet5", "canvas_single"),
        ("detection", "unet", "canvas_boxes"),
        ("filtering", "vertical_edges", "canvas_single"),
        ("language", "lenet5", "number_words"),
        ("localization", "detector", "canvas_single"),
        ("segmentation", "detector", "canvas_masks"),
        ("speech", "lenet5", "spoken_digits"),
        ("translation", "lenet5", "number_words"),
    ],
)
def test_a_network_of_another_task_is_refused(task: str, model: str, dataset: str) -> None:
    with pytest.raises(InvalidInput, match=f"network '{model}' "):
        tasks.find(task).check_fits(zoo.build(model), data=FEW[dataset]())


def test_a_mask_is_the_class_of_the_largest_logit_by_operators_that_onnx_knows() -> None:
    image = keras.Input((4, 4, 11), name="image")
    served = tasks.find("segmentation").served(keras.Model(image, keras.layers.ReLU()(image)))
    logits = np.random.default_rng(3).normal(size=(2, 4, 4, 11)).astype(np.float32)
    masks = served.predict(logits, verbose=0)
    assert masks.dtype == np.int32
    assert (masks == logits.argmax(axis=-1)).all()
    graph = tf.function(served).get_concrete_function(tf.TensorSpec((None, 4, 4, 11))).graph
    assert {"ArgMax"} <= {operator.type for operator in graph.get_operations()}
    assert "Bitcast" not in {operator.type for operator in graph.get_operations()}


def test_on_a_digit_the_class_weighs_ten_times_what_holding_one_does() -> None:
    labels, alike = np.array([[0, 4]]), np.zeros((1, 2, 11), np.float32)
    nothing, digit = np.asarray(tasks.find("segmentation").loss()(labels, tf.constant(alike)))[0]
    assert nothing == pytest.approx(math.log(11))
    assert digit == pytest.approx(math.log(11 / 10) + 10 * math.log(10), rel=1e-5)
    right = np.full((1, 2, 11), -20, np.float32)
    right[0, [0, 1], [0, 4]] = 20
    assert np.asarray(tasks.find("segmentation").loss()(labels, tf.constant(right))) == (
        pytest.approx(0, abs=1e-6)
    )


def test_cells_hold_the_boxes_whose_centre_lies_in_them() -> None:
    labels = np.array([[[7, 0.5, 0.0, 0.8, 0.2], [-1, 0, 0, 0, 0], [2, 0, 0.6, 0.3, 1]]], "f4")
    held, boxes, kinds = (np.asarray(one) for one in detection.cells_of(labels, rows=6, columns=6))
    assert np.argwhere(held[0]).tolist() == [[0, 4], [3, 0]]
    assert boxes[0, 3, 0] == pytest.approx([0.5, 0.0, 0.8, 0.2])
    assert (kinds[0, 0, 4], kinds[0, 3, 0]) == (2, 7)


def test_of_two_boxes_on_one_object_the_better_stays() -> None:
    cells = np.full((1, 6, 6, 15), -8, np.float32)
    for place, chance in (((2, 2), 4.0), ((2, 3), 2.0), ((5, 5), 3.0)):
        cells[0, *place, 0] = chance
        cells[0, *place, 1:3] = 6.0 if place == (2, 2) else -6.0  # both near the same corner
        cells[0, *place, 3:5] = 0.0
        cells[0, *place, 5 + 3] = 9.0
    cells[0, 2, 3, 1] = 6.0
    boxes, scores, classes, count = detection.Suppression()(tf.constant(cells))
    assert count.numpy().tolist() == [2]
    assert classes.numpy()[0, :2].tolist() == [3, 3]
    assert scores.numpy()[0, 0] == pytest.approx(1 / (1 + math.exp(-4)), abs=0.01)
    assert boxes.shape == (1, 8, 4)


def test_repetitions_and_blanks_are_no_words() -> None:
    units = [[10, 3, 3, 10, 3, 5, 5, 10], [10] * 8, [1, 2, 1, 2, 1, 2, 1, 2]]
    logits = np.eye(11, dtype=np.float32)[np.array(units)]
    words = speech.GreedyWords(dtype="int32")(tf.constant(logits)).numpy()
    assert words[0].tolist() == [3, 3, 5, -1, -1, -1, -1, -1]
    assert words[1].tolist() == [-1] * 8
    assert words[2].tolist() == [1, 2, 1, 2, 1, 2, 1, 2]


def test_greedy_decoding_gives_what_the_decoder_would_be_told() -> None:
    keras.utils.set_random_seed(2)
    network = zoo.build("translator_small")
    source = number_words.load(training=10).test.inputs[:4, :12]
    given = np.zeros((4, 7), np.int32)
    decoder = translation.GreedyDecoder(network, end=0)
    digits = decoder(tf.constant(source)).numpy()
    given[:, 1:] = np.maximum(digits[:, :-1], 0)
    taught = network.predict([source, given], verbose=0).argmax(axis=-1)
    said = digits >= 0
    assert (taught[said] == digits[said]).all()


def test_auxiliary_heads_carry_a_part_of_the_loss_and_are_not_served() -> None:
    image = keras.Input((4,), name="image")
    heads = [
        keras.layers.Dense(3, activation="softmax", name=n)(image) for n in ("probabilities", "a")
    ]
    network = keras.Model(image, heads)
    task = tasks.find("classification")
    assert task.served(network).output_names == ["probabilities"]
    answers = np.asarray(task.learner(network)(np.ones((2, 4), np.float32)))
    loss = np.asarray(task.loss()(np.array([0, 1]), tf.constant(answers)))
    by_hand = -np.log(answers[[0, 1], 0, [0, 1]]) - 0.3 * np.log(answers[[0, 1], 1, [0, 1]])
    assert loss == pytest.approx(by_hand, rel=1e-5)


def test_a_missing_figure_or_one_that_is_no_number_keeps_no_bound() -> None:
    assert tasks.reached({"accuracy": 0.9, "word_error": 0.01}, bounds={"accuracy": 0.9})
    assert tasks.reached({"word_error": 0.05}, bounds={"word_error": 0.05})
    assert not tasks.reached({"word_error": 0.06}, bounds={"word_error": 0.05})
    assert not tasks.reached({}, bounds={"exact": 0.1})
    assert not tasks.reached({"exact": math.nan}, bounds={"exact": 0.1})
