"""Recipes: the shipped ones hold, and a wrong one names the file and the key."""

import re
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput, NotFound
from training import recipe as recipes
from training.recipe import Optimizer

SOUND = """
description = "a run"
model = "mlp"
dataset = "mnist"
epochs = 3
batch_size = 32
seed = 1
validation_samples = 100
required_accuracy = 0.9

[optimizer]
learning_rate = 0.1

[augmentation]
shift = 0.1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_recipes_require_what_the_project_promises() -> None:
    required = {name: recipes.read(path).bounds for name, path in recipes.shipped().items()}
    promised = {"lenet5": 0.99, "mlp": 0.975, "perceptron": 0.915}
    for name, accuracy in promised.items():
        assert required[name] == {"accuracy": accuracy}
    for name in ("gru_language", "lstm_language", "transformer_language"):
        assert required[name] == {"excess_entropy": 0.02}


def test_a_shipped_recipe_writes_the_artifact_it_is_named_after() -> None:
    read = {name: recipes.read(path) for name, path in recipes.shipped().items()}
    assert {name: recipe.artifact for name, recipe in read.items()} == {name: name for name in read}


def test_a_shipped_recipe_that_nobody_has_measured_here_says_so() -> None:
    read = [recipes.read(path) for path in recipes.shipped().values()]
    unmeasured = [recipe for recipe in read if recipe.minutes is None and recipe.data is None]
    assert {recipe.dataset for recipe in unmeasured} == {"cifar10", "fashion_mnist", "images"}
    for recipe in unmeasured:
        assert "unmeasured" in recipe.description or recipe.dataset == "images"


def test_sgd_with_momentum_is_what_a_recipe_gets_that_names_no_optimizer(tmp_path: Path) -> None:
    recipe = recipes.read(written(tmp_path, SOUND))
    assert recipe.optimizer == Optimizer(learning_rate=0.1, name="sgd", momentum=0.9)


def test_a_recipe_without_an_augmentation_table_has_none(tmp_path: Path) -> None:
    text, _ = SOUND.split("[augmentation]")
    assert recipes.read(written(tmp_path, text)).augmentation is None


@pytest.mark.parametrize(
    ("line", "wrong", "complaint"),
    [
        ("epochs = 3", "epochs = 0", "epochs must be at least 1, received 0"),
        ("epochs = 3", "epochs = 2.5", "epochs must be a whole number, received 2.5"),
        ("epochs = 3", "epoch = 3", "unknown key 'epoch'"),
        ("epochs = 3", "", "missing 'epochs'"),
        ("batch_size = 32", "batch_size = -1", "batch_size must be at least 1, received -1"),
        ("seed = 1", "seed = 4294967296", "seed must be in [0, 4294967295], received 4294967296"),
        ('"mlp"', '"lenet"', "model must be one of alexnet, "),
        ('"mnist"', '"cifar"', "dataset must be one of canvas_boxes, "),
        ("0.9", "1.5", "required_accuracy must be in (0, 1], received 1.5"),
        ("0.9", "nan", "required_accuracy must be in (0, 1], received nan"),
        ("= 100", "= 0", "validation_samples must be at least 1, received 0"),
        ("seed = 1", "seed = 1\ntraining_samples = 0", "training_samples must be at least 1"),
        ("learning_rate = 0.1", "", "optimizer: missing 'learning_rate'"),
        ("learning_rate = 0.1", "learning_rate = -0.1", "optimizer.learning_rate must be in"),
        ("learning_rate = 0.1", "learning_rate = nan", "optimizer.learning_rate must be in"),
        ("learning_rate = 0.1", "learning_rate = '1'", "optimizer: learning_rate must be a number"),
        ("= 0.1\n\n", "= 0.1\nname = 'lion'\n", "optimizer.name must be one of sgd, adam"),
        ("= 0.1\n\n", "= 0.1\nmomentum = 1.0\n", "optimizer.momentum must be in [0, 1)"),
        ("= 0.1\n\n", "= 0.1\nmomentum = nan\n", "optimizer.momentum must be in [0, 1)"),
        ("= 0.1\n\n", "= 0.1\nname = 'adam'\nmomentum = 0.9\n", "optimizer.momentum must be"),
        ("= 0.1\n\n", "= 0.1\nfinal_learning_rate = 0.2\n", "optimizer.final_learning_rate must"),
        ("shift = 0.1", "shift = 3", "augmentation.shift must be in [0, 0.5], received 3.0"),
        ("shift = 0.1", "zoom = -0.1", "augmentation.zoom must be in [0, 0.5], received -0.1"),
        ("shift = 0.1", "rotation_degrees = 200", "augmentation.rotation_degrees must be in"),
        ("shift = 0.1", "tilt = true", "augmentation: unknown key 'tilt'"),
        ("shift = 0.1", "flip = 1", "augmentation: flip must be true or false, received 1"),
        ("shift = 0.1", "mix_up = 0.6", "augmentation.mix_up must be in [0, 0.5], received 0.6"),
        ("seed = 1", "seed = 1\ntask = 'singing'", "task must be one of classification, "),
        ("seed = 1", "seed = 1\nprecision = 'half'", "precision must be one of float32, "),
        ("seed = 1", "seed = 1\npatience = 0", "patience must be at least 1, received 0"),
        ("required_accuracy = 0.9", "", "required_accuracy or [required] must be given"),
        ("= 0.1\n\n", "= 0.1\nschedule = 'line'\n", "optimizer.schedule must be one of cosine"),
        ("= 0.1\n\n", "= 0.1\nweight_decay = -1\n", "optimizer.weight_decay must be 0 or more"),
        ("= 0.1\n\n", "= 0.1\nclip_norm = 0\n", "optimizer.clip_norm must be positive"),
        ("seed = 1", "seed = 1\nimages = {side = 0}", "images.side must be in [1, 1024]"),
        ("seed = 1", "seed = 1\nimages = {channels = 2}", "images.channels must be 1 or 3"),
        ("seed = 1", "seed = 1\nimages = {std = 0.0}", "images.std must be in (0, 255]"),
        ("seed = 1", "seed = 1\nimages = {test_share = 1.0}", "images.test_share must be in"),
        ("epochs = 3", "epochs 3", "is not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_file_and_key(
    tmp_path: Path, line: str, wrong: str, complaint: str
) -> None:
    assert line in SOUND
    path = written(tmp_path, SOUND.replace(line, wrong, 1))
    with pytest.raises(InvalidInput, match=f"^{re.escape(str(path))}.*{re.escape(complaint)}"):
        recipes.read(path)


def test_a_name_finds_the_shipped_recipe_and_a_path_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    assert recipes.find(str(path)) == path
    assert recipes.find("lenet5") == recipes.FOLDER / "lenet5.toml"


def test_an_unknown_name_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(NotFound, match=r"no file lenet6 .* shipped are .*lenet5"):
        recipes.find("lenet6")
