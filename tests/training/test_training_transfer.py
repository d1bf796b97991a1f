"""Transfer learning: what is taken over, what is frozen when, and that a kill changes nothing."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from ridgeline import __main__
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from training import artifact, datasets, transfer, zoo
from training.checkpoint import Checkpoint
from training.datasets import DataSet, Samples, split
from training.epoch import Progress
from training.fit import fit
from training.recipe import Recipe, Stage, Transfer
from training.transfer import WEIGHTS_FILE, begin, by_layer, freeze, length, place_of

Make = Callable[..., Recipe]
STAGES = (
    Stage(learning_rate=0.1, train=("probabilities",)),
    Stage(learning_rate=0.01, after_epochs=2),
)


def learned(folder: Path, network: keras.Model) -> Path:
    """The weights of a network, where an artifact has them."""
    folder.mkdir()
    np.savez(folder / WEIGHTS_FILE, **by_layer(network))
    return folder


def told(source: Path, **instead: object) -> Transfer:
    made = Transfer(source=str(source), head=("probabilities",), stages=STAGES)
    return dataclasses.replace(made, **instead)  # type: ignore[arg-type]


def test_all_layers_but_the_head_begin_with_what_was_learned(tmp_path: Path) -> None:
    source = zoo.build("lenet5")
    network = zoo.build("lenet5")
    before = network.get_layer("probabilities").get_weights()
    begin(network, transfer=told(learned(tmp_path / "a", source)))
    for layer in network.layers:
        wanted = before if layer.name == "probabilities" else None
        wanted = wanted or source.get_layer(layer.name).get_weights()
        for one, other in zip(layer.get_weights(), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_source_that_does_not_fit_is_told(tmp_path: Path) -> None:
    source = learned(tmp_path / "a", zoo.build("mlp"))
    network = zoo.build("lenet5")
    with pytest.raises(InvalidInput, match=r"'conv1' has weights of \[\(5, 5, 1, 6\).* have \[\]"):
        begin(network, transfer=told(source))
    with pytest.raises(InvalidInput, match=r"transfer.head must name .*conv1, .*received 'top'"):
        begin(network, transfer=told(source, head=("top",)))
    with pytest.raises(NotFound, match=r"no .*b/weights\.npz to begin with; train b first"):
        begin(network, transfer=told(tmp_path / "b"))
    (source / WEIGHTS_FILE).write_bytes(b"nothing")
    with pytest.raises(CorruptData, match="holds no weights"):
        begin(network, transfer=told(source))


def test_an_artifact_has_the_weights_that_another_run_begins_with(
    recipe: Make, few_digits: DataSet, tmp_path: Path
) -> None:
    assert len(few_digits.test) == 400
    run = recipe(model="perceptron", epochs=1, training_samples=50)
    outcome = fit(run)
    artifact.write(
        outcome, recipe=dataclasses.replace(run, required_accuracy=0.01), output=tmp_path
    )
    network = zoo.build("perceptron")
    begin(network, transfer=told(tmp_path / "perceptron", head=()))
    for one, other in zip(network.get_weights(), outcome.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_frozen_layer_stays_as_it_is_until_its_stage_and_its_averages_too() -> None:
    image = keras.Input((4,), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Dense(3, name="body")(image))
    network = keras.Model(image, layers.Dense(2, activation="softmax", name="probabilities")(x))
    freeze(network, stage=STAGES[0])
    network.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    before = by_layer(network)
    inputs = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    network.fit(inputs, np.zeros(8), verbose=0)
    changed = [name for name, array in by_layer(network).items() if (array != before[name]).any()]
    assert changed == ["probabilities:0", "probabilities:1"]

    freeze(network, stage=STAGES[1])
    assert all(layer.trainable for layer in network.layers)
    with pytest.raises(InvalidInput, match=r"stages\.train must name .*'top'"):
        freeze(network, stage=Stage(learning_rate=1.0, train=("top",)))


def test_stages_follow_each_other_at_their_rates(recipe: Make) -> None:
    run = recipe(epochs=5, transfer=told(Path("a")))
    assert [place_of(epoch, stages=STAGES) for epoch in range(5)] == [0, 0, 1, 1, 1]
    assert [length(place, recipe=run) for place in (0, 1)] == [2, 3]
    short = dataclasses.replace(run, epochs=1)
    assert [length(place, recipe=short) for place in (0, 1)] == [1, 0]
    assert transfer.optimizer_of(STAGES[1], recipe=run).learning_rate == 0.01
    assert transfer.stages(recipe()) == (Stage(learning_rate=0.05),)


def test_the_head_learns_first_then_all(recipe: Make, few: DataSet, tmp_path: Path) -> None:
    """Seen after each stage, through the artifact of a run that ends there."""
    source = zoo.build("mlp")
    run = recipe(training_samples=100, transfer=told(learned(tmp_path / "a", source)))

    def changed(epochs: int) -> list[str]:
        found = by_layer(fit(dataclasses.replace(run, epochs=epochs)).network)
        first = by_layer(source)
        return sorted(name for name in first if (found[name] != first[name]).any())

    assert len(few.training) == 1500
    assert changed(2) == ["probabilities:0", "probabilities:1"]
    assert changed(3) == sorted(by_layer(source))


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_killed_run_ends_as_if_it_had_not_been_killed_in_any_stage(
    recipe: Make, tmp_path: Path, last: int
) -> None:
    source = learned(tmp_path / "a", zoo.build("mlp"))
    run = recipe(epochs=4, training_samples=100, transfer=told(source))
    whole = fit(run)

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.epoch == last + 1:
            raise Killed

    kept = Checkpoint(tmp_path, recipe=run)
    with pytest.raises(Killed):
        fit(run, kept=kept, watch=kill)
    state = kept.read()
    assert state is not None
    assert len(state.curve) == last
    again = fit(run, kept=kept)
    assert [point.loss for point in again.curve] == [point.loss for point in whole.curve]
    for one, other in zip(again.network.get_weights(), whole.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_class_has_as_many_samples_as_were_asked_for() -> None:
    labels = np.repeat(np.arange(3), 20)
    samples = Samples(np.arange(60), labels)
    training, validation = split(samples, validation_samples=12, seed=3, training_per_class=4)
    assert np.bincount(training.labels).tolist() == [4, 4, 4]
    assert not set(training.inputs) & set(validation.inputs)
    other, _ = split(samples, validation_samples=12, seed=4, training_per_class=4)
    assert set(training.inputs) != set(other.inputs)
    with pytest.raises(InvalidInput, match=r"class 0 has \d+ samples to train with, not 19"):
        split(samples, validation_samples=12, seed=3, training_per_class=19)
    with pytest.raises(InvalidInput, match=r"labels of \(2,\) have no class each"):
        split(
            Samples(np.zeros(9), np.zeros((9, 2))),
            validation_samples=1,
            seed=1,
            training_per_class=1,
        )


def test_the_small_digits_stand_in_their_images_as_those_of_mnist_do() -> None:
    pytest.importorskip("sklearn")
    data = datasets.load("digits8")
    assert data.training.inputs.shape == (1000, 32, 32, 1)
    assert (len(data.test), data.test.inputs.dtype) == (797, np.float32)
    assert (data.test.inputs.min(), data.test.inputs.max()) == (0, 1)
    assert not data.test.inputs[:, :6].any()
    means = [data.test.inputs[data.test.labels == label].mean(axis=(0, 3)) for label in (0, 1)]
    assert means[0][16, 16] < 0.1 < 0.5 < means[1][16, 16]  # a ring, a stroke


def test_digits_whose_package_is_not_here_are_missing_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # as where it is not installed
    code = __main__.main(["train", "transfer_digits8", "--output", str(tmp_path)])
    assert code == __main__.MISSING_DATA
    told = capsys.readouterr().err
    assert "the digits are in the package scikit-learn: pip install '.[transfer]'" in told


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"stages": ()}, r"after_epochs must be 0 for the first stage .* received \[\]"),
        ({"stages": STAGES[1:]}, r"received \[2\]"),
        ({"stages": (*STAGES, STAGES[1])}, r"received \[0, 2, 2\]"),
    ],
)
def test_stages_must_follow_each_other(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        told(Path("a"), **fields)


def test_what_does_not_go_with_transfer_is_refused(recipe: Make) -> None:
    with pytest.raises(InvalidInput, match=r"patience must be none with \[transfer\], received 3"):
        recipe(transfer=told(Path("a")), patience=3)
    with pytest.raises(InvalidInput, match="training_samples must be none with training_per_class"):
        recipe(training_samples=5, training_per_class=1)
    with pytest.raises(InvalidInput, match=r"stages\.learning_rate must be in \(0, 10\]"):
        Stage(learning_rate=0.0)
