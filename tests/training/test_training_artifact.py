"""What training hands over: complete, named rightly, and whole or not there at all."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ridgeline.errors import InvalidInput
from training import artifact, datasets
from training.datasets import DataSet
from training.fit import Outcome, fit
from training.recipe import Augmentation, Recipe

Make = Callable[..., Recipe]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def outcome(few: DataSet, recipe: Make) -> Iterator[Outcome]:
    """A LeNet-5 that has learned a little, trained with augmentation."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(datasets, "load", lambda _name: few)
        yield fit(recipe(model="lenet5", epochs=4, augmentation=Augmentation(shift=0.02)))


@pytest.fixture
def run(recipe: Make) -> Recipe:
    """The recipe that `outcome` came from."""
    return recipe(model="lenet5", epochs=4, augmentation=Augmentation(shift=0.02))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_artifact_holds_what_the_export_stage_reads(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    artifact.write(outcome, recipe=run, output=tmp_path / "new" / "artifacts")
    assert files(tmp_path / "new" / "artifacts") == {"lenet5"}
    folder = tmp_path / "new" / "artifacts" / "lenet5"
    arrays = {"weights.npz", "evaluation.npz", "calibration.npz"}
    assert files(folder) == {"saved_model", "training.json", "curve.png", *arrays}
    assert (folder / "curve.png").read_bytes().startswith(PNG)


def test_the_saved_model_takes_image_and_answers_probabilities_for_any_batch(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    artifact.write(outcome, recipe=run, output=tmp_path)
    loaded = tf.saved_model.load(str(tmp_path / "lenet5" / "saved_model"))
    serve = loaded.signatures["serving_default"]
    assert serve.structured_input_signature[1] == {
        "image": tf.TensorSpec((None, 32, 32, 1), tf.float32, name="image")
    }
    outputs = serve.structured_outputs
    assert list(outputs) == ["probabilities"]
    assert outputs["probabilities"].shape.as_list() == [None, 10]
    assert outputs["probabilities"].dtype == tf.float32
    for batch in (1, 3):
        images = outcome.test.inputs[:batch]
        answers = serve(image=tf.constant(images))["probabilities"].numpy()
        assert answers.shape == (batch, 10)
        assert answers == pytest.approx(outcome.network.predict(images, verbose=0), abs=1e-6)
        assert answers.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_saved_model_is_as_right_on_the_evaluation_data_as_training_json_says(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    report = artifact.write(outcome, recipe=run, output=tmp_path)
    with np.load(tmp_path / "lenet5" / "evaluation.npz", allow_pickle=False) as data:
        image, label = data["image"], data["label"]
        assert set(data.files) == {"image", "label"}
    assert (image.dtype, image.shape) == (np.float32, (400, 32, 32, 1))
    assert (label.dtype, label.shape) == (np.int64, (400,))
    loaded = tf.saved_model.load(str(tmp_path / "lenet5" / "saved_model"))
    answers = loaded.signatures["serving_default"](image=tf.constant(image))["probabilities"]
    correct = int((answers.numpy().argmax(axis=1) == label).sum())
    assert correct == report["test_correct"] > 200


def test_training_json_tells_how_the_network_came_to_be(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    report = artifact.write(outcome, recipe=run, output=tmp_path)
    stored = json.loads((tmp_path / "lenet5" / "training.json").read_text(encoding="utf-8"))
    assert stored == report
    assert stored["model"] == "lenet5"
    assert stored["task"] == "classification"
    assert stored["recipe"]["optimizer"]["momentum"] == 0.9
    assert stored["recipe"]["augmentation"]["shift"] == 0.02
    assert (stored["seed"], stored["parameters"], stored["reached"]) == (7, 61_706, True)
    assert stored["labels"] == {"probabilities": list("0123456789")}
    assert stored["test_accuracy"] == stored["test_correct"] / stored["test_samples"]
    assert [point["epoch"] for point in stored["curve"]] == [1, 2, 3, 4]
    assert set(stored["packages"]) == {"python", "tensorflow", "keras", "numpy"}
    assert stored["packages"]["tensorflow"] == tf.__version__


def test_below_its_target_a_run_leaves_the_curve_and_takes_the_older_model_away(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    artifact.write(outcome, recipe=run, output=tmp_path)
    report = artifact.write(outcome, recipe=replace(run, required_accuracy=1.0), output=tmp_path)
    assert report["reached"] is False
    assert files(tmp_path / "lenet5") == {"training.json", "curve.png"}


def test_an_accuracy_equal_to_the_required_one_reaches_it(outcome: Outcome, run: Recipe) -> None:
    exact = replace(run, required_accuracy=outcome.test_accuracy)
    above = replace(run, required_accuracy=np.nextafter(outcome.test_accuracy, 1).item())
    assert artifact.describe(outcome, recipe=exact)["reached"] is True
    assert artifact.describe(outcome, recipe=above)["reached"] is False


def test_a_curve_that_diverged_is_written_with_nulls_and_drawn(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    nan = float("nan")
    lost = replace(outcome.curve[0], loss=nan, val_loss=nan)
    artifact.write(
        replace(outcome, curve=(lost,), measures={"accuracy": 0.0}), recipe=run, output=tmp_path
    )
    text = (tmp_path / "lenet5" / "training.json").read_text(encoding="utf-8")
    assert json.loads(text)["curve"][0]["loss"] is None
    assert files(tmp_path / "lenet5") == {"training.json", "curve.png"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_a_write_that_is_interrupted_leaves_the_older_artifact_and_nothing_else(
    outcome: Outcome,
    run: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: type[BaseException],
) -> None:
    artifact.write(outcome, recipe=run, output=tmp_path)
    before = (tmp_path / "lenet5" / "training.json").read_bytes()

    def interrupt(*_: object, **__: object) -> None:
        raise interruption

    monkeypatch.setattr(artifact, "save_network", interrupt)
    with pytest.raises(interruption):
        artifact.write(outcome, recipe=replace(run, seed=8), output=tmp_path)
    assert files(tmp_path) == {"lenet5"}
    assert (tmp_path / "lenet5" / "training.json").read_bytes() == before
    assert (tmp_path / "lenet5" / "saved_model" / "saved_model.pb").is_file()


def test_what_a_killed_writer_left_is_cleared_away_by_the_next(
    outcome: Outcome, run: Recipe, tmp_path: Path
) -> None:
    (tmp_path / ".lenet5.staging" / "new" / "saved_model").mkdir(parents=True)
    artifact.write(outcome, recipe=run, output=tmp_path)
    assert files(tmp_path) == {"lenet5"}


def test_a_file_in_the_place_of_the_output_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(InvalidInput, match=r"artifacts cannot hold artifacts: File exists"):
        artifact.check_writable(tmp_path / "artifacts")
