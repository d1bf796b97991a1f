"""Small SavedModels and artifacts, as training writes them."""

import json
import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture(scope="session")
def saved_model(tf, tmp_path_factory):
    """A softmax classifier: image FP32 [-1,4,4,1] -> probabilities FP32 [-1,3]."""

    class Classifier(tf.Module):
        def __init__(self):
            super().__init__()
            generator = np.random.default_rng(3)
            self.weights = tf.Variable(generator.standard_normal((16, 3)), dtype=tf.float32)

        @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), tf.float32, name="image")])
        def serve(self, image):
            logits = tf.reshape(image, (-1, 16)) @ self.weights
            return {"probabilities": tf.nn.softmax(logits)}

    return _saved(tf, Classifier(), tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def two_in_two_out(tf, tmp_path_factory):
    """a, b -> total = a + b, and z_scaled = 2a, so that order by name matters."""

    class Sums(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec((None, 2), tf.float32, name="b"),
                tf.TensorSpec((None, 2), tf.float32, name="a"),
            ]
        )
        def serve(self, b, a):
            return {"z_scaled": 2.0 * a, "total": a + b}

    return _saved(tf, Sums(), tmp_path_factory.mktemp("sums"))


@pytest.fixture
def save(tf, tmp_path):
    """A function that saves y = function(x) as a SavedModel: save(function, *sizes, kind=...)."""

    def save(function, *sizes, kind=tf.float32, name="x"):
        module = tf.Module()
        specs = [tf.TensorSpec((None, *sizes), kind, name=name)]
        module.serve = tf.function(function, input_signature=specs)
        return _saved(tf, module, tmp_path / "saved")

    return save


def _saved(tf, module, folder):
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


@pytest.fixture
def artifact(saved_model, tmp_path):
    """An artifact folder with a labelled test set of 100 samples."""
    folder = tmp_path / "classifier"
    folder.mkdir()
    (folder / "saved_model").symlink_to(saved_model)
    generator = np.random.default_rng(5)
    np.savez_compressed(
        folder / "evaluation.npz",
        image=generator.random((100, 4, 4, 1), dtype=np.float32),
        label=generator.integers(0, 3, 100),
    )
    _write_training(folder)
    return folder


@pytest.fixture
def write_training():
    """A function that writes training.json of an artifact folder, with what is changed in it."""
    return _write_training


def _write_training(folder, **changed):
    table = {
        "model": "classifier",
        "task": "classification",
        "seed": 1,
        "reached": True,
        "test_accuracy": 0.4,
        "required_accuracy": 0.3,
        "labels": {"probabilities": ["cat", "dog", "bird"]},
    }
    (folder / "training.json").write_text(json.dumps({**table, **changed}))
