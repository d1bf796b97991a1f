"""The networks are what their docstrings and the papers say."""

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import pytest

from ridgeline.errors import NotFound
from training import multiply_adds, tasks, zoo
from training import recipe as recipes
from training.zoo.localizer import Edges


@dataclass(frozen=True)
class Size:
    """What is known of a network once it was built."""

    inputs: dict[str, tuple[int, ...]]
    outputs: list[str]
    multiply_adds: int
    parameters: int


SizeOf = Callable[[str], Size]


@pytest.fixture(scope="module")
def size_of() -> SizeOf:
    """The size of a network as it is served; each is built once."""

    @functools.cache
    def build(name: str) -> Size:
        with no_random_weights():
            network = zoo.build(name)
        if name == "googlenet":
            network = tasks.find("classification").served(network)
        size = Size(
            inputs={tensor.name: tensor.shape[1:] for tensor in network.inputs},
            outputs=list(network.output_names),
            multiply_adds=multiply_adds.of(network),
            parameters=multiply_adds.learned(network),
        )
        del network
        keras.backend.clear_session()
        return size

    return build


@contextlib.contextmanager
def no_random_weights() -> Iterator[None]:
    """Zeros instead of random weights: what is counted does not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (keras.initializers.Orthogonal, keras.initializers.GlorotUniform):
            patch.setattr(kind, "__call__", _zeros)
        yield


def _zeros(_self: object, shape: tuple[int, ...], dtype: str | None = None) -> object:
    return keras.ops.zeros(shape, dtype=dtype or "float32")


def documented(name: str) -> list[str]:
    """The row of a network in the docstring of its file."""
    file = zoo.file_of(name)
    text = sys.modules[f"training.zoo.{file}"].__doc__ or ""
    found = re.search(rf"^    {name}  .*$", text, re.MULTILINE)
    assert found, f"{file} does not tell of {name}"
    return re.split(r"  +", found.group().strip())


@pytest.mark.parametrize("name", zoo.names())
def test_the_docstring_gives_the_inputs_the_multiply_adds_and_the_parameters(
    name: str, size_of: SizeOf
) -> None:
    size = size_of(name)
    shapes = " + ".join(" x ".join(map(str, shape)) for shape in size.inputs.values())
    row = [name, shapes, f"{size.multiply_adds:,}", f"{size.parameters:,}"]
    assert documented(name) == row


def test_edges_lie_where_their_maps_point_and_between_two_that_do() -> None:
    maps = np.full((1, 24, 24, 4), -50, np.float32)
    for edge, (row, column) in enumerate([(0, 9), (9, 2), (23, 9), (9, 22)]):
        maps[0, row, column, edge] = 50
    maps[0, 9, 23, 3] = 50
    assert np.asarray(Edges()(maps))[0] == pytest.approx([0, 2 / 23, 1, 22.5 / 23], abs=1e-6)


# Parameters: torchvision, and Caffe's reference models for AlexNet and GoogLeNet; multiply-adds as
# counted from those models' shapes.
@pytest.mark.parametrize(
    ("name", "multiply_adds_published", "parameters_published"),
    [
        ("alexnet", 724_406_816, 60_965_224),
        ("googlenet", 1_582_671_872, 6_998_552),
        ("mobilenet_v2", 300_774_272, 3_504_872),
        ("resnet18", 1_814_073_344, 11_689_512),
        ("resnet50", 3_857_973_248, 25_557_032),
        ("vgg11", 7_609_090_048, 132_863_336),
        ("vgg16", 15_470_264_320, 138_357_544),
        ("efficientnet_lite0", 385_187_552, 4_652_008),
    ],
)
def test_the_figures_are_the_published_ones(
    name: str,
    multiply_adds_published: int,
    parameters_published: int,
    size_of: SizeOf,
) -> None:
    size = size_of(name)
    assert (size.multiply_adds, size.parameters) == (multiply_adds_published, parameters_published)


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet56", 0.86)])
def test_the_networks_for_cifar_are_about_as_large_as_the_paper_says(
    name: str, millions: float, size_of: SizeOf
) -> None:
    assert size_of(name).parameters / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("name", zoo.names())
def test_classifiers_take_an_image_and_answer_probabilities(name: str, size_of: SizeOf) -> None:
    size = size_of(name)
    if "probabilities" in size.outputs and "image" in size.inputs:
        assert list(size.inputs) == ["image"]
        assert size.outputs == ["probabilities"]


def test_lenet5_has_the_multiply_adds_that_were_counted_by_hand(
    size_of: SizeOf,
) -> None:
    by_hand = (
        28 * 28 * 6 * (5 * 5 * 1)
        + 10 * 10 * 16 * (5 * 5 * 6)
        + 1 * 1 * 120 * (5 * 5 * 16)
        + 120 * 84
        + 84 * 10
    )
    assert by_hand == 416_520
    assert size_of("lenet5").multiply_adds == by_hand


def test_recurrent_and_attending_layers_are_counted_as_by_hand(
    size_of: SizeOf,
) -> None:
    steps, words, units = 16, 10, 48
    lstm = steps * (4 * units * (16 + units) + units * words)
    assert size_of("lstm_language").multiply_adds == lstm
    assert size_of("gru_language").multiply_adds == steps * (
        3 * units * (16 + units) + units * words
    )
    block = 4 * units * units + 2 * steps * units + 2 * units * 4 * units
    assert size_of("transformer_language").multiply_adds == steps * (2 * block + units * words)


def test_lenet5_is_the_network_of_the_course() -> None:
    layers = zoo.build("lenet5").layers
    shapes = [layer.output.shape[1:] for layer in layers]
    assert shapes == [
        (32, 32, 1),
        (28, 28, 6),
        (14, 14, 6),
        (10, 10, 16),
        (5, 5, 16),
        (1, 1, 120),
        (120,),
        (84,),
        (10,),
    ]
    activations = [layer.activation.__name__ for layer in layers if hasattr(layer, "activation")]
    assert activations == ["tanh", "tanh", "tanh", "tanh", "softmax"]
    pools = [layer for layer in layers if isinstance(layer, keras.layers.AveragePooling2D)]
    assert [pool.pool_size for pool in pools] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("name", recipes.shipped())
def test_the_description_of_a_recipe_gives_the_size_of_its_network(
    name: str, size_of: SizeOf
) -> None:
    recipe = recipes.read(recipes.find(name))
    size = size_of(recipe.model)
    thousands, millions = size.parameters / 1e3, size.multiply_adds / 1e6
    told = f"{thousands:.0f} k parameters, {millions:.2f} M multiply-adds"
    assert recipe.description.endswith(told), told


def test_the_fixed_filter_shows_a_vertical_edge_and_no_horizontal_one() -> None:
    image = np.zeros((2, 32, 32, 1), np.float32)
    image[0, :, :16], image[1, :16] = 1, 1
    upright, lying = zoo.build("vertical_edges").predict(image, verbose=0)[..., 0]
    assert (upright[:, 14:16] == 3).all()
    assert np.count_nonzero(upright) == 2 * 30
    assert not lying.any()


@pytest.mark.parametrize("name", ["lstm_language", "gru_language", "transformer_language"])
def test_one_step_at_a_time_answers_as_the_whole_sentence_does(name: str) -> None:
    keras.utils.set_random_seed(3)
    network = zoo.build(name)
    words = np.random.default_rng(1).integers(0, 10, (2, 16)).astype(np.int32)
    whole = network.predict(words, verbose=0)
    step = zoo.build_step(name, network=network)
    states = {
        tensor.name: np.full((2, *tensor.shape[1:]), 7, tensor.dtype)  # which a start forgets
        for tensor in step.inputs[2:]
    }
    for place in range(16):
        given = {"word": words[:, place : place + 1], "start": np.full((2, 1), place == 0)}
        answer = {key: np.asarray(value) for key, value in step({**given, **states}).items()}
        states = {state: answer[f"next_{state}"] for state in states}
        assert answer["probabilities"] == pytest.approx(whole[:, place], abs=1e-6)
        assert (answer["likeliest"][:, 0] == whole[:, place].argmax(axis=1)).all()


def test_the_transformer_has_no_answer_behind_its_last_place() -> None:
    step = zoo.build_step("transformer_language", network=zoo.build("transformer_language"))
    given = {tensor.name: np.zeros((2, *tensor.shape[1:]), tensor.dtype) for tensor in step.inputs}
    given["place"] = np.int32([[15], [16]])
    last, behind = np.asarray(step(given)["probabilities"])
    assert last.sum() == pytest.approx(1, abs=1e-5)
    assert np.isnan(behind).all()


@pytest.mark.parametrize("name", ["lenet5", "translator_small", "keras.MobileNet"])
def test_other_networks_have_no_form_for_one_step(name: str) -> None:
    assert zoo.build_step(name, network=None) is None


def test_no_word_of_the_transformer_depends_on_a_later_one() -> None:
    network = zoo.build("transformer_language")
    words = np.random.default_rng(1).integers(0, 10, (1, 16)).astype(np.int32)
    other = words.copy()
    other[:, 9:] = (other[:, 9:] + 3) % 10
    first, second = (network.predict(one, verbose=0) for one in (words, other))
    assert first[:, :9] == pytest.approx(second[:, :9], abs=1e-6)
    assert np.abs(first[:, 9:] - second[:, 9:]).max() > 1e-3


def test_any_network_of_keras_applications_is_built_by_its_name() -> None:
    network = zoo.build("keras.MobileNet")
    assert network.input_shape[1:] == (224, 224, 3)
    assert network.output_names == ["probabilities"]
    with pytest.raises(NotFound, match=r"no 'MobileNetV9'; it has .*MobileNetV3Small"):
        zoo.build("keras.MobileNetV9")


def test_an_unknown_network_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"no network 'lenet6'; there are alexnet, .*lenet5"):
        zoo.build("lenet6")
