"""Graphs at a lower precision: made from real samples, held to the full graph, told their speed."""

import numpy as np
import onnx
import onnxruntime
import pytest

from export import pipeline, variants
from export.parity import Accuracy
from export.pipeline import export
from export.saved_model import SavedModel
from export.settings import ExportSettings
from ridgeline import __main__
from ridgeline.cost import FP16, INT8
from ridgeline.errors import InvalidInput, NotFound, TargetMissed, Unsupported
from ridgeline.repository import read_card, scan


@pytest.fixture
def sure(artifact):
    """The artifact with a test set of which the classifier is sure and right, and calibration."""
    images = np.random.default_rng(7).random((1000, 4, 4, 1), dtype=np.float32)
    answers = SavedModel(artifact / "saved_model").run({"image": images})["probabilities"]
    margins = np.sort(answers)[:, -1] - np.sort(answers)[:, -2]
    best = np.argsort(margins)[-100:]
    labels = answers[best].argmax(axis=1)
    np.savez_compressed(artifact / "evaluation.npz", image=images[best], label=labels)
    np.savez_compressed(artifact / "calibration.npz", image=images[:100])
    return artifact


@pytest.mark.parametrize("variant", variants.NAMES)
def test_a_variant_is_a_model_of_its_own_with_its_accuracy_and_speed(variant, sure, tmp_path):
    root = tmp_path / "repository"
    result = export(ExportSettings(source=sure, repository=root, variant=variant))
    (model,) = scan(root)
    assert model.name == result["name"] == f"classifier_{variant}"
    card = read_card(model.version_directory(1))
    assert card.training["accuracy"]["exported"]["correct"] >= 99
    assert card.training["accuracy"]["full"]["correct"] == 100
    assert {"batch_1", "batch_8"} == set(card.training["speed"])
    assert all(found["gain"] > 0 for found in card.training["speed"].values())
    session = onnxruntime.InferenceSession(root / model.name / "1" / "model.onnx")
    (image,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["batch", 4, 4, 1])
    assert (answer.name, answer.type) == ("probabilities", "tensor(float)")


@pytest.mark.parametrize(("variant", "precision"), [("int8", INT8), ("fp16", FP16)])
def test_the_cost_of_a_variant_says_at_which_precision_it_is(variant, precision, sure, tmp_path):
    root = tmp_path / "repository"
    export(ExportSettings(source=sure, repository=root, variant=variant))
    cost = read_card(scan(root)[0].version_directory(1)).cost
    assert cost.multiply_adds_per_sample == 16 * 3
    assert [layer.precision for layer in cost.layers] == [precision]


def test_int8_weights_have_a_scale_for_each_channel(sure, tmp_path):
    root = tmp_path / "repository"
    export(ExportSettings(source=sure, repository=root, variant="int8"))
    model = onnx.load(root / "classifier_int8" / "1" / "model.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors
    ]
    (scales,) = (tensors[node.input[1]].dims for node in weights)
    assert list(scales) == [3]


def test_a_variant_that_loses_too_much_is_not_published(sure, tmp_path, monkeypatch):
    found = iter([Accuracy(100, 100), Accuracy(100, 100), Accuracy(98, 100)])
    monkeypatch.setattr(pipeline, "accuracy", lambda *_, **__: next(found))
    root = tmp_path / "repository"
    with pytest.raises(TargetMissed, match=r"int8 has 98 of 100 right, the full graph 100: less"):
        export(ExportSettings(source=sure, repository=root, variant="int8"))
    assert not root.exists()


def test_the_recipe_says_how_much_may_be_lost(sure, tmp_path, monkeypatch, write_training):
    write_training(sure, recipe={"variant_accuracy": 0.9})
    found = iter([Accuracy(100, 100), Accuracy(100, 100), Accuracy(98, 100)])
    monkeypatch.setattr(pipeline, "accuracy", lambda *_, **__: next(found))
    result = export(ExportSettings(source=sure, repository=tmp_path / "r", variant="int8"))
    assert result["accuracy"]["exported"]["correct"] == 98


def test_int8_without_samples_and_a_test_set_without_labels_are_refused(
    artifact, saved_model, tmp_path
):
    root = tmp_path / "repository"
    with pytest.raises(NotFound, match=r"int8 needs the artifact's calibration\.npz"):
        export(ExportSettings(source=artifact, repository=root, variant="int8"))
    with pytest.raises(Unsupported, match="has no labelled test set, to which fp16"):
        export(ExportSettings(source=saved_model, repository=root, variant="fp16"))
    with pytest.raises(InvalidInput, match="one of int8, fp16, received 'int4'"):
        variants.make(onnx.ModelProto(), variant="int4", calibration={})


def test_the_command_tells_whether_it_gains(sure, tmp_path, capsys):
    words = ["export", str(sure), "--repository", str(tmp_path / "r"), "--variant", "fp16"]
    assert __main__.main(words) == 0
    told = capsys.readouterr().out
    assert scan(tmp_path / "r")[0].name == "classifier_fp16"
    assert "speed, batch of 8" in told
    assert "times as fast" in told
