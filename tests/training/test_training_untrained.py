"""Networks written without training, to be exported for their cost."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ridgeline import __main__
from ridgeline.errors import NotFound
from training import untrained


def signature_of(folder):
    return tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]


def test_a_network_is_written_without_recipe_under_a_name_that_says_so(tmp_path):
    report = untrained.write("googlenet_cifar", seed=3, output=tmp_path)
    folder = tmp_path / "googlenet_cifar_untrained"
    assert report["artifact"] == str(folder)
    told = json.loads((folder / "training.json").read_text())
    assert (told["model"], told["untrained"]) == ("googlenet_cifar_untrained", True)
    assert not (folder / "evaluation.npz").exists()
    answer = signature_of(folder)(image=tf.zeros((2, 32, 32, 3)))
    assert set(answer) == {"probabilities"}


def test_no_weight_is_left_at_a_value_that_an_export_could_lose(tmp_path):
    untrained.write("lenet5", seed=3, output=tmp_path)
    loaded = tf.saved_model.load(str(tmp_path / "lenet5_untrained" / "saved_model"))
    weights = [np.asarray(weight) for weight in loaded.variables]
    assert len(weights) == 10
    assert all(np.ptp(weight) > 0 for weight in weights)


def test_the_same_seed_writes_the_same_network_in_place_of_the_old_one(tmp_path):
    answers = []
    for seed in (3, 3, 4):
        folder = untrained.write("mlp", seed=seed, output=tmp_path)["artifact"]
        image = tf.ones((1, *signature_of(tmp_path / "mlp_untrained").inputs[0].shape[1:]))
        answers.append(
            np.asarray(signature_of(tmp_path / "mlp_untrained")(image=image)["probabilities"])
        )
        assert folder == str(tmp_path / "mlp_untrained")
    assert (answers[0] == answers[1]).all()
    assert (answers[0] != answers[2]).any()
    assert [path.name for path in tmp_path.iterdir()] == ["mlp_untrained"]


def test_a_network_with_a_form_for_one_step_has_it_as_a_signature_over_the_same_weights(tmp_path):
    untrained.write("gru_language", seed=3, output=tmp_path)
    loaded = tf.saved_model.load(str(tmp_path / "gru_language_untrained" / "saved_model"))
    whole, step = (loaded.signatures[name] for name in ("serving_default", "step"))
    first = step(word=tf.constant([[5]]), start=tf.constant([[True]]), hidden=tf.zeros((1, 48)))
    assert set(first) == {"probabilities", "likeliest", "next_hidden"}
    sentence = whole(words=tf.constant([[5] + [0] * 15]))["probabilities"][0, 0]
    assert np.asarray(first["probabilities"])[0] == pytest.approx(np.asarray(sentence), abs=1e-6)


def test_an_unknown_network_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(NotFound, match="no network 'vgg17'"):
        untrained.write("vgg17", seed=1, output=tmp_path)


def test_the_command_tells_what_it_wrote(tmp_path, capsys):
    assert __main__.main(["train", "perceptron", "--untrained", "--output", str(tmp_path)]) == 0
    assert "perceptron_untrained: 10,250 random weights, seed 1" in capsys.readouterr().out
