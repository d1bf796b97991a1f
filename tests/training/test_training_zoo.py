"""The networks are what their docstrings say."""

import math
import re
import sys

import keras
import pytest

from ridgeline.errors import NotFound
from training import recipe as recipes
from training import zoo


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of convolutions and dense layers: each weight once per place it is used at."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total


def documented(name: str) -> dict[str, str]:
    """The figures in the docstring of a network's file."""
    text = sys.modules[f"training.zoo.{name}"].__doc__ or ""
    return dict(re.findall(r"^    (input|multiply-adds|parameters) +(.+)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", zoo.names())
def test_the_docstring_gives_the_shape_the_multiply_adds_and_the_parameters(name: str) -> None:
    network = zoo.build(name)
    assert documented(name) == {
        "input": " x ".join(map(str, network.input_shape[1:])),
        "multiply-adds": f"{multiply_adds(network):,}",
        "parameters": f"{network.count_params():,}",
    }


@pytest.mark.parametrize("name", zoo.names())
def test_the_input_is_called_image_and_the_output_probabilities(name: str) -> None:
    network = zoo.build(name)
    assert [tensor.name for tensor in network.inputs] == ["image"]
    assert network.output_names == ["probabilities"]
    assert network.output_shape == (None, 10)


def test_lenet5_has_the_multiply_adds_that_were_counted_by_hand() -> None:
    by_hand = (
        28 * 28 * 6 * (5 * 5 * 1)
        + 10 * 10 * 16 * (5 * 5 * 6)
        + 1 * 1 * 120 * (5 * 5 * 16)
        + 120 * 84
        + 84 * 10
    )
    assert by_hand == 416_520
    assert multiply_adds(zoo.build("lenet5")) == by_hand


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
def test_the_description_of_a_recipe_gives_the_size_of_its_network(name: str) -> None:
    recipe = recipes.read(recipes.find(name))
    network = zoo.build(recipe.model)
    thousands, millions = network.count_params() / 1e3, multiply_adds(network) / 1e6
    size = f"{thousands:.0f} k parameters, {millions:.2f} M multiply-adds"
    assert recipe.description.endswith(size)


def test_an_unknown_network_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"no network 'lenet6'; there are lenet5, perceptron"):
        zoo.build("lenet6")
