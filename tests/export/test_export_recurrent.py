"""Recurrent layers of Keras become the operators LSTM and GRU, masks and directions included."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

from export.convert import convert
from export.saved_model import SavedModel
from ridgeline import graph
from ridgeline.errors import InvalidInput

_WORDS = np.array(
    [
        [1, 2, 3, 4, 5, 6],
        [7, 8, 9, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 2, 3, 0],
    ],
    np.int32,
)


@pytest.fixture
def exported(tmp_path):
    """A function that exports a Keras network: the graph, and what both answer to _WORDS."""

    def export(network, words=_WORDS):
        random = np.random.default_rng(2)
        network.set_weights([random.normal(0, 0.5, w.shape) for w in network.get_weights()])
        network.export(str(tmp_path / "saved"), verbose=False)
        model = convert(SavedModel(tmp_path / "saved"), name="network")
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (found,) = session.run(None, {session.get_inputs()[0].name: words})
        return model, np.asarray(network(words)), found

    return export


def network(*, masked, recurrent):
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(10, 4, mask_zero=masked)(words)
    return keras.Model(words, layers.Dense(3, name="logits")(recurrent(x)))


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_layer_becomes_the_operator_whatever_its_mask(kind, masked, exported):
    recurrent = getattr(layers, kind)(5, return_sequences=True)
    model, expected, found = exported(network(masked=masked, recurrent=recurrent))
    assert operators(model).count(kind) == 1
    assert "Loop" not in operators(model)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_masked_layers_of_both_directions_become_operators(kind, exported):
    recurrent = layers.Bidirectional(getattr(layers, kind)(5, return_sequences=True))
    model, expected, found = exported(network(masked=True, recurrent=recurrent))
    assert "Loop" not in operators(model)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_weights_too_large_for_the_converter_are_put_into_the_operator(exported):
    recurrent = layers.LSTM(64, return_sequences=True)  # 64 x 256 numbers: past 32 KiB
    model, expected, found = exported(network(masked=False, recurrent=recurrent))
    assert operators(model).count("LSTM") == 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_operator_has_a_cost_where_a_loop_has_none(masked, exported):
    model, *_ = exported(network(masked=masked, recurrent=layers.GRU(5, return_sequences=True)))
    cost = graph.cost_of(model, batches=True)
    assert cost.multiply_adds_per_sample == 6 * (3 * 5 * (4 + 5) + 5 * 3)


def test_a_loop_that_is_no_layer_known_here_stays_and_answers_the_same(exported):
    recurrent = layers.GRU(5, return_sequences=True, recurrent_activation="hard_sigmoid")
    model, expected, found = exported(network(masked=False, recurrent=recurrent))
    assert "Loop" in operators(model)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(InvalidInput, match="in its body may run any number of times"):
        graph.cost_of(model, batches=True)
