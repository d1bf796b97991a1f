"""The loop: repeatable, keeps the test set out of it, and survives a run that diverges."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.errors import InvalidInput
from training import datasets
from training.augmentation import augmentation_layers, mix_up
from training.checkpoint import Checkpoint
from training.datasets import DataSet, Samples
from training.epoch import Progress
from training.fit import fit
from training.recipe import Augmentation, Optimizer, Recipe
from training.run import evaluation_batch
from training.schedule import Schedule, make_optimizer
from training.tasks.classification import check_fits, count_correct

Make = Callable[..., Recipe]


def weights(network: keras.Model) -> list[np.ndarray]:
    arrays: list[np.ndarray] = network.get_weights()
    return arrays


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all((one == other).all() for one, other in zip(first, second, strict=True))


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("model", "augmentation"),
    [
        ("mlp", None),
        ("lenet5", Augmentation(shift=0.05, rotation_degrees=5, zoom=0.05)),
    ],
)
def test_the_same_seed_gives_the_same_weights_to_the_bit(
    recipe: Make, model: str, augmentation: Augmentation | None
) -> None:
    run = recipe(model=model, augmentation=augmentation, training_samples=200)
    first, again = fit(run), fit(run)
    assert same(weights(first.network), weights(again.network))
    assert [point.loss for point in first.curve] == [point.loss for point in again.curve]


@pytest.mark.usefixtures("few_digits")
def test_another_seed_gives_other_weights(recipe: Make) -> None:
    first, other = (fit(recipe(seed=seed, epochs=1)) for seed in (1, 2))
    assert not same(weights(first.network), weights(other.network))


def test_nothing_in_a_run_depends_on_the_test_set(
    recipe: Make, few_digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(recipe())
    wrong = Samples(few_digits.test.inputs, (few_digits.test.labels + 1) % 10)
    monkeypatch.setattr(datasets, "load", lambda _name: dataclasses.replace(few_digits, test=wrong))
    again = fit(recipe())
    assert same(weights(first.network), weights(again.network))
    assert first.test_correct > 200 > again.test_correct


@pytest.mark.usefixtures("few_digits")
def test_the_network_learns_and_the_curve_records_each_epoch(recipe: Make) -> None:
    outcome = fit(recipe(epochs=3))
    assert [point.epoch for point in outcome.curve] == [1, 2, 3]
    losses = [point.val_loss for point in outcome.curve]
    assert losses[2] < losses[0] < math.log(10)  # a guess costs log(10)
    assert all(point.seconds > 0 for point in outcome.curve)
    assert outcome.train_seconds >= sum(point.seconds for point in outcome.curve)
    assert outcome.test_accuracy == outcome.test_correct / 400 > 0.7


@pytest.mark.usefixtures("few_digits")
def test_the_learning_rate_falls_along_half_a_cosine_to_its_end(recipe: Make) -> None:
    settings = Optimizer(learning_rate=0.08, final_learning_rate=0.02)
    curve = fit(recipe(epochs=4, optimizer=settings)).curve
    by_hand = [0.02 + 0.06 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in (1, 2, 3, 4)]
    assert [point.learning_rate for point in curve] == pytest.approx(by_hand, rel=1e-4)


def test_a_run_that_diverges_ends_early_and_classes_nothing_rightly(
    recipe: Make, few_digits: DataSet
) -> None:
    few_digits.training.inputs[:] = np.nan  # passes tanh; a ReLU may swallow it
    outcome = fit(recipe(model="lenet5", epochs=50))
    assert len(outcome.curve) == 1
    assert not math.isfinite(outcome.curve[-1].loss)
    assert outcome.test_correct == 0


def test_adam_and_sgd_are_what_keras_calls_them() -> None:
    sgd = make_optimizer(Optimizer(learning_rate=0.1, momentum=0.5), steps=10)
    adam = make_optimizer(Optimizer(learning_rate=0.1, name="adam"), steps=10)
    assert isinstance(sgd, keras.optimizers.SGD)
    assert sgd.momentum == 0.5
    assert isinstance(adam, keras.optimizers.Adam)


@given(step=st.integers(0, 1000), rate=st.floats(1e-5, 10), share=st.floats(0, 1))
def test_the_schedule_stays_between_its_ends(step: int, rate: float, share: float) -> None:
    settings = Optimizer(learning_rate=rate, final_learning_rate=rate * share)
    optimizer = make_optimizer(settings, steps=500)
    optimizer.iterations.assign(step)
    now = float(optimizer.learning_rate)
    assert rate * share * (1 - 1e-5) - 1e-7 <= now <= rate * (1 + 1e-5)
    if step >= 500:
        assert now == pytest.approx(rate * share, rel=1e-4, abs=1e-6)


def test_augmentation_changes_images_in_training_only() -> None:
    keras.utils.set_random_seed(1)
    images = np.zeros((4, 32, 32, 1), np.float32)
    images[:, 12:20, 12:20] = 1
    images[:, 12:20, 12:14] = 0.5  # not the same from the left and from the right
    for bounds in (
        {"shift": 0.2},
        {"rotation_degrees": 40.0},
        {"zoom": 0.4},
        {"flip": True},
        {"cut_out": 0.6},
    ):
        [layer] = augmentation_layers(Augmentation(**bounds))
        assert not np.array_equal(np.asarray(layer(images, training=True)), images)
        assert np.array_equal(np.asarray(layer(images, training=False)), images)


def test_a_bound_of_zero_and_no_table_add_no_layer() -> None:
    assert augmentation_layers(Augmentation()) == []
    assert augmentation_layers(None) == []


def test_a_shift_moves_a_pixel_no_further_than_its_bound() -> None:
    keras.utils.set_random_seed(1)
    images = np.zeros((200, 32, 32, 1), np.float32)
    images[:, 16, 16] = 1
    [layer] = augmentation_layers(Augmentation(shift=0.1))
    moved = np.asarray(layer(images, training=True))
    _, rows, columns, _ = np.nonzero(moved > 0.01)
    furthest = max(abs(rows - 16).max(), abs(columns - 16).max())
    assert 2 <= furthest <= math.ceil(0.1 * 32)


def test_a_turn_and_a_zoom_go_about_the_middle_and_no_further_than_their_bounds() -> None:
    keras.utils.set_random_seed(1)
    images = np.zeros((400, 33, 33, 1), np.float32)
    images[:, 15:18, 25:28] = 1  # ten pixels to the right of the middle
    [layer] = augmentation_layers(Augmentation(rotation_degrees=30, zoom=0.2))

    moved = np.asarray(layer(images, training=True))[..., 0]

    places = np.arange(33) - 16
    mass = moved.sum(axis=(1, 2))
    down = (moved.sum(axis=2) * places).sum(axis=1) / mass
    right = (moved.sum(axis=1) * places).sum(axis=1) / mass
    turns, distances = np.degrees(np.arctan2(down, right)), np.hypot(down, right)
    assert -30.5 < turns.min() < -28 < 28 < turns.max() < 30.5
    assert 10 / 1.2 - 0.2 < distances.min() < 8.6 < 12 < distances.max() < 10 / 0.8 + 0.2
    assert abs(np.corrcoef(turns, distances)[0, 1]) < 0.2  # drawn one by one


def test_an_answer_that_is_not_finite_is_a_wrong_one() -> None:
    class Answers:
        def predict(self, _inputs: Any, **_: Any) -> np.ndarray:
            return np.array([[1, 0], [np.nan, 0], [0, 1], [np.inf, 0]], np.float32)

    samples = Samples(np.zeros((4, 1), np.float32), np.zeros(4, np.int64))
    assert count_correct(Answers(), samples=samples) == 1


def test_a_network_for_other_data_is_refused_with_both_shapes(few_digits: DataSet) -> None:
    image = keras.Input((28, 28, 1), name="image")
    flat = keras.layers.Flatten()(image)
    network = keras.Model(image, keras.layers.Dense(10, name="probabilities")(flat))
    with pytest.raises(InvalidInput, match=r"takes \(28, 28, 1\).*samples of \(32, 32, 1\)"):
        check_fits(network, data=few_digits)


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("patience", [None, 3])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(
    recipe: Make, tmp_path: Path, patience: int | None
) -> None:
    run = recipe(
        model="lenet5",
        epochs=4,
        training_samples=200,
        patience=patience,
        augmentation=Augmentation(shift=0.05, cut_out=0.2, mix_up=0.3),
        optimizer=Optimizer(learning_rate=0.05, warm_up_epochs=1.5, weight_decay=1e-3),
    )
    whole = fit(run)
    kept = Checkpoint(tmp_path, recipe=run)

    def kill(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (3, 2):
            raise Killed

    with pytest.raises(Killed):
        fit(run, watch=kill, kept=kept)
    told: list[Progress] = []
    again = fit(run, watch=told.append, kept=kept)
    assert (told[0].epoch, told[0].step) == (3, 1)
    assert same(weights(whole.network), weights(again.network))
    assert [point.loss for point in again.curve] == [point.loss for point in whole.curve]


@pytest.mark.usefixtures("few_digits")
def test_samples_drawn_anew_are_asked_for_only_where_there_are_such(recipe: Make) -> None:
    with pytest.raises(InvalidInput, match="redrawn must be false: mnist has no samples but its"):
        fit(recipe(redrawn=True))


def test_each_epoch_is_drawn_anew_and_alike_after_a_kill(
    recipe: Make, few_digits: DataSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[tuple[int, int]] = []

    def redraw(count: int, seed: int) -> Samples:
        drawn.append((count, seed))
        order = np.random.default_rng(seed).permutation(len(few_digits.training))
        return few_digits.training.take(order[:count])

    data = dataclasses.replace(few_digits, redraw=redraw)
    monkeypatch.setattr(datasets, "load", lambda _name: data)
    run = recipe(epochs=3, training_samples=200, redrawn=True)
    whole = fit(run)
    assert drawn == [(200, 7 * 2**20 + 1), (200, 7 * 2**20 + 2)]  # the first is that of the split
    assert not same(
        weights(whole.network), weights(fit(dataclasses.replace(run, redrawn=False)).network)
    )
    kept = Checkpoint(tmp_path, recipe=run)

    def kill(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (3, 1):
            raise Killed

    with pytest.raises(Killed):
        fit(run, watch=kill, kept=kept)
    assert same(weights(whole.network), weights(fit(run, kept=kept).network))


@pytest.mark.usefixtures("few_digits")
def test_a_run_without_progress_ends_early_with_its_best_weights(recipe: Make) -> None:
    settings = Optimizer(learning_rate=3.0, schedule="constant")
    outcome = fit(recipe(epochs=30, patience=2, training_samples=300, optimizer=settings))
    losses = [point.val_loss for point in outcome.curve]
    assert len(losses) < 30
    assert min(losses) == losses[-3]


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_in_mixed_precision_the_network_learns_and_is_served_in_float32(
    recipe: Make, precision: str
) -> None:
    outcome = fit(recipe(model="lenet5", precision=precision, epochs=3))
    assert outcome.test_accuracy > 0.5
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in outcome.network.layers} == {"float32"}


@pytest.mark.usefixtures("few_digits")
def test_the_curve_is_logged_for_tensorboard(recipe: Make, tmp_path: Path) -> None:
    fit(recipe(epochs=1, training_samples=100), logs=tmp_path)
    [events] = tmp_path.iterdir()
    assert b"val_accuracy" in events.read_bytes()


@pytest.mark.usefixtures("few_digits")
def test_the_watcher_is_told_of_every_step_and_of_the_speed(recipe: Make) -> None:
    told: list[Progress] = []
    fit(recipe(epochs=2, training_samples=120), watch=told.append)
    assert [(one.epoch, one.step) for one in told] == [(e, s) for e in (1, 2) for s in (1, 2, 3)]
    assert all(one.flops_per_s > 0 for one in told)
    assert told[0].last is None
    assert told[-1].last is not None


def test_warm_up_rises_in_a_line_and_steps_fall_by_tens() -> None:
    settings = Optimizer(learning_rate=0.8, schedule="steps", warm_up_epochs=1)
    optimizer = make_optimizer(settings, steps=44, steps_per_epoch=4)
    schedule = Schedule(settings, steps=44, warm_up_steps=4)
    rates = [float(schedule(step)) for step in range(44)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:24] == pytest.approx([0.8] * 20)
    assert rates[24:34] == pytest.approx([0.08] * 10)
    assert rates[34:] == pytest.approx([0.008] * 10)
    assert float(optimizer.learning_rate) == pytest.approx(0.2)


def test_weight_decay_shrinks_kernels_and_leaves_biases() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, bias_initializer="ones")])
    settings = Optimizer(learning_rate=0.1, weight_decay=0.5, momentum=0.0, schedule="constant")
    optimizer = make_optimizer(settings, steps=10)
    kernel, bias = weights(network)
    optimizer.apply([np.zeros_like(kernel), np.zeros_like(bias)], network.trainable_variables)
    assert weights(network)[0] == pytest.approx(kernel * 0.95)
    assert weights(network)[1] == pytest.approx(bias)


def test_mixed_images_carry_as_much_of_a_label_as_of_an_image() -> None:
    images = np.stack([np.zeros((4, 4, 1)), np.ones((4, 4, 1))]).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)
    mixed, shares = mix_up(images, labels, most=0.5, seed=np.array([1, 2]))
    assert np.asarray(mixed)[:, 0, 0, 0] == pytest.approx(np.asarray(shares)[:, 1])
    assert np.asarray(shares).sum(axis=1) == pytest.approx(1)
    assert 0.5 <= np.asarray(shares)[0, 0] < 1


@pytest.mark.usefixtures("few_digits")
def test_no_epoch_waits_for_a_tuner_of_its_batches(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = []
    real = keras.Model.fit

    def seen(network: keras.Model, batches: tf.data.Dataset, **rest: Any) -> Any:
        tuned.append(batches.options().autotune.enabled)
        return real(network, batches, **rest)

    monkeypatch.setattr(keras.Model, "fit", seen)
    fit(recipe(epochs=2))
    assert tuned == [False, False]


def test_large_samples_are_evaluated_a_few_at_a_time() -> None:
    small, large = np.zeros((1, 8, 8, 1)), np.zeros((1, 1000, 1000, 3))
    batches = [evaluation_batch(Samples(one, np.zeros(1))) for one in (small, large)]
    assert batches == [1000, 1]
