"""A folder of images by class: what is read, how it is split, what is refused, what is served."""

import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import serving
from ridgeline.__main__ import MISSING_DATA, main
from ridgeline.errors import CorruptData, InvalidInput, MissingData
from training import datasets
from training.datasets import DataSet, ImageSettings, image_folder

SMALL = ImageSettings(side=8)
RECIPE = """
description = "digits as files"
model = "lenet5"
name = "digits"
dataset = "images"
epochs = 8
batch_size = 16
seed = 1
validation_samples = 2000
required_accuracy = 0.8

[images]
channels = 1

[optimizer]
learning_rate = 0.05
"""


def drawn(seed: int, *, size: tuple[int, int] = (12, 9)) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(levels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of a cat and five of a dog, and a file that is none."""
    for name, count, suffix in (("cat", 10, "png"), ("dog", 5, "JPG")):
        (tmp_path / name).mkdir()
        for number in range(count):
            image = drawn(number + 100 * (name == "dog"))
            image.save(tmp_path / name / f"{number}.{suffix}")
    (tmp_path / "cat/Thumbs.db").write_bytes(b"no image")
    (tmp_path / "cat/.hidden.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


def rows(inputs: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in inputs}


def test_folder_names_are_classes_and_a_share_of_each_is_kept_for_the_test(folder: Path) -> None:
    data = datasets.load("images", folder=folder, images=SMALL)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.training.labels).tolist() == [8, 4]
    assert np.bincount(data.test.labels).tolist() == [2, 1]
    assert data.training.inputs.shape == (12, 8, 8, 3)
    assert data.training.inputs.dtype == np.float32
    assert 0 <= data.training.inputs.min() < 0.3 < 0.7 < data.training.inputs.max() <= 1
    assert not rows(data.training.inputs) & rows(data.test.inputs)


def test_other_file_names_and_copies_leave_the_split_as_it_was(folder: Path) -> None:
    first = datasets.load("images", folder=folder, images=SMALL)
    for number, path in enumerate(sorted((folder / "cat").glob("[0-9]*.png"))):
        path.rename(path.with_name(f"{9 - number}th.PNG"))
    kept = next((folder / "cat").glob("*.PNG"))
    kept.with_name("copy.png").write_bytes(kept.read_bytes())
    again = datasets.load("images", folder=folder, images=SMALL)
    for one, other in ((first.training, again.training), (first.test, again.test)):
        assert np.array_equal(one.inputs, other.inputs)
        assert np.array_equal(one.labels, other.labels)


def test_a_split_that_is_there_is_taken(folder: Path) -> None:
    for part, name in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
        (folder / part / name).mkdir(parents=True)
        drawn(hash(part + name) % 1000).save(folder / part / name / "one.png")
    data = image_folder.load(folder=folder, settings=SMALL)
    assert (len(data.training), len(data.test)) == (2, 2)
    (folder / "test/cow").mkdir()
    drawn(5).save(folder / "test/cow/one.png")
    with pytest.raises(InvalidInput, match=r"train has the classes .*'cat', 'dog'.*'cow'"):
        image_folder.load(folder=folder, settings=SMALL)


def test_a_damaged_image_is_named(folder: Path) -> None:
    path = folder / "cat/3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CorruptData, match=r"cat/3\.png cannot be read as a PNG or JPEG image"):
        image_folder.load(folder=folder, settings=SMALL)


def test_the_same_image_in_two_classes_is_refused_with_both_places(folder: Path) -> None:
    (folder / "dog/x.png").write_bytes((folder / "cat/3.png").read_bytes())
    with pytest.raises(InvalidInput, match=r"dog/x\.png is the same image as .*cat/3\.png"):
        image_folder.load(folder=folder, settings=SMALL)


def test_what_holds_no_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="--data FOLDER, with a folder for each class"):
        image_folder.load()
    with pytest.raises(MissingData, match="there is no folder"):
        image_folder.load(folder=tmp_path / "nowhere")
    (tmp_path / "cat").mkdir()
    drawn(1).save(tmp_path / "cat/1.png")
    with pytest.raises(InvalidInput, match=r"at least two classes, received \['cat'\]"):
        image_folder.load(folder=tmp_path)
    (tmp_path / "dog").mkdir()
    drawn(2).save(tmp_path / "dog/1.png")
    with pytest.raises(InvalidInput, match="class 'cat' needs at least two images"):
        image_folder.load(folder=tmp_path)


def test_more_than_memory_should_hold_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_MOST_BYTES", 1000)
    with pytest.raises(InvalidInput, match="15 images of 8 x 8 x 3 take 11520 bytes"):
        image_folder.load(folder=folder, settings=SMALL)
    monkeypatch.setattr(image_folder, "_MOST_BYTES", 1 << 30)
    monkeypatch.setattr(image_folder, "_MOST_PIXELS", 100)
    with pytest.raises(CorruptData, match="9 x 12 pixels are too many"):
        image_folder.load(folder=folder, settings=SMALL)


def test_settings_of_a_folder_of_images_are_refused_for_another_data_set() -> None:
    with pytest.raises(InvalidInput, match="is for the data set 'images', not for 'mnist'"):
        datasets.load("mnist", images=SMALL)


def served_tensor(file: bytes, *, settings: ImageSettings) -> np.ndarray:
    """What the model before the classifier makes of the file, with what the artifact tells it."""
    api = Path(serving.__file__).parent / "python_worker/api"
    sys.path.insert(0, str(api))
    try:
        path = api.parents[1] / "python-models/preprocess_image.py"
        spec = importlib.util.spec_from_file_location("preprocess_image", path)
        assert spec is not None
        assert spec.loader is not None
        source = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(source)
    finally:
        sys.path.remove(str(api))
    how = settings.preprocessing
    told = {"height": settings.side, "width": settings.side, "channels": settings.channels}
    told |= {"resize": how.resize, "crop_share": how.crop_share, "filter": how.filter}
    told |= {"mean": how.mean, "std": how.std}
    config = {
        "input": [{"name": "file", "dims": ["1"]}],
        "output": [{"name": "image", "dims": [settings.side, settings.side, settings.channels]}],
        "parameters": {key: {"string_value": str(value)} for key, value in told.items()},
    }
    model = source.TritonPythonModel()
    model.initialize({"model_config": json.dumps(config)})
    tensor: np.ndarray = model._tensor(file)
    return tensor


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "P"])
def test_an_image_is_trained_with_as_it_is_served(tmp_path: Path, mode: str, channels: int) -> None:
    settings = ImageSettings(side=10, channels=channels, mean=100.0, std=50.0)
    image = drawn(3, size=(40, 23))
    if mode == "RGBA":
        image.putalpha(120)
    if mode == "I;16":
        levels = np.random.default_rng(1).integers(0, 65536, (40, 23), np.uint16)
        image = Image.fromarray(levels)
    elif image.mode != mode:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    path = tmp_path / "image.png"
    path.write_bytes(file.getvalue())
    trained = image_folder.tensor(path, settings=settings)
    assert np.array_equal(trained, served_tensor(file.getvalue(), settings=settings))


def test_a_classifier_of_my_own_images_knows_their_names(mnist: DataSet, tmp_path: Path) -> None:
    names = {0: "zero", 1: "one", 4: "four"}
    for digit, name in names.items():
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in np.flatnonzero(mnist.training.labels == digit)[:60]:
            levels = np.round(mnist.training.inputs[number, ..., 0] * 255).astype(np.uint8)
            Image.fromarray(levels).save(tmp_path / "mine" / name / f"{number}.png")
    recipe = tmp_path / "digits.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    words = ["--data", str(tmp_path / "mine"), "--output", str(tmp_path / "out")]
    assert main(["train", str(recipe), "--name", "my_digits", *words]) == 0
    told = json.loads((tmp_path / "out/my_digits/training.json").read_text(encoding="utf-8"))
    assert told["labels"] == {"probabilities": ["four", "one", "zero"]}
    assert told["test_samples"] == 36
    assert told["recipe"]["data"] == str(tmp_path / "mine")
    assert told["preprocessing"]["resize"] == "crop"
    assert (tmp_path / "out/my_digits/saved_model/saved_model.pb").is_file()


def test_without_images_the_shipped_recipe_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "images", "--output", str(tmp_path)]) == MISSING_DATA
    assert "--data FOLDER, with a folder for each class" in capsys.readouterr().err
