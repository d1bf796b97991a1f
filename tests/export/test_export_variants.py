"""Graphs at a lower precision: made from real samples, held to the full graph, told their speed."""

import math
import re

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from export import pipeline, variants
from export.judging import Judgement
from export.parity import Accuracy
from export.pipeline import export
from export.saved_model import SavedModel
from export.settings import ExportSettings
from ridgeline import __main__
from ridgeline.cost import FP16, INT8
from ridgeline.errors import InvalidInput, NotFound, ParityFailed, TargetMissed, Unsupported
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
    told = card.training["variant"]
    assert (told["of"], told["precision"], told["least_share"]) == ("classifier", variant, 0.99)
    assert told["full"] == {"accuracy": 1.0}
    assert card.training["measures"]["accuracy"] >= 0.99
    assert {"batch_1", "batch_8"} == set(told["speed"])
    assert all(0 < one["low"] <= one["gain"] <= one["high"] for one in told["speed"].values())
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


@pytest.fixture
def weak(monkeypatch):
    """Of any variant 98 of 100 are right."""
    found = Judgement({"accuracy": 0.98}, Accuracy(98, 100))
    monkeypatch.setattr(pipeline, "judge", lambda *_, **__: found)


@pytest.mark.usefixtures("weak")
def test_a_variant_that_loses_too_much_is_not_published(sure, tmp_path):
    root = tmp_path / "repository"
    with pytest.raises(TargetMissed, match=r"int8 shows accuracy 98\.00% .* 100\.00%: it keeps"):
        export(ExportSettings(source=sure, repository=root, variant="int8"))
    assert not root.exists()


@pytest.mark.usefixtures("weak")
def test_the_recipe_says_how_much_may_be_lost(sure, tmp_path, write_training):
    write_training(sure, recipe={"variant_accuracy": 0.9})
    result = export(ExportSettings(source=sure, repository=tmp_path / "r", variant="int8"))
    assert result["accuracy"]["exported"]["correct"] == 98
    assert result["variant"]["least_share"] == 0.9


def test_int8_without_samples_and_a_test_set_without_labels_are_refused(
    artifact, saved_model, tmp_path
):
    root = tmp_path / "repository"
    with pytest.raises(NotFound, match=r"int8 needs the artifact's calibration\.npz"):
        export(ExportSettings(source=artifact, repository=root, variant="int8"))
    with pytest.raises(Unsupported, match="has no labelled test set, to which fp16"):
        export(ExportSettings(source=saved_model, repository=root, variant="fp16"))
    with pytest.raises(InvalidInput, match=r"one of int8, fp16, received 'int4'"):
        variants.make(onnx.ModelProto(), variant="int4", calibration={})


def test_the_command_tells_whether_it_gains(sure, tmp_path, capsys):
    words = ["export", str(sure), "--repository", str(tmp_path / "r"), "--variant", "fp16"]
    assert __main__.main(words) == 0
    told = capsys.readouterr().out
    assert scan(tmp_path / "r")[0].name == "classifier_fp16"
    assert "speed, batch of 8" in told
    assert "times as fast" in told


def test_models_tells_how_fast_a_variant_is(sure, tmp_path, capsys):
    words = ["--repository", str(tmp_path / "r")]
    assert __main__.main(["export", str(sure), *words, "--variant", "int8"]) == 0
    capsys.readouterr()
    assert __main__.main(["models", *words]) == 0
    assert re.search(r"batch 1: [\d.]+ \([\d.]+-[\d.]+\) times as fast", capsys.readouterr().out)


@pytest.fixture
def boxes(save, tmp_path, write_training):
    """An artifact of the task localization, with a truth that its network nearly hits."""
    import tensorflow as tf

    kernel = np.random.default_rng(3).standard_normal((16, 6)).astype(np.float32)

    def localize(image):
        row = tf.reshape(image, (-1, 16)) @ kernel
        low, size = tf.sigmoid(row[:, :2]) / 2, tf.sigmoid(row[:, 2:4])
        box = tf.concat([low, low + size], axis=1)
        return {"probabilities": tf.nn.softmax(row[:, 4:]), "box": box}

    folder = tmp_path / "places"
    folder.mkdir()
    (folder / "saved_model").symlink_to(save(localize, 4, 4, 1, name="image"))
    images = np.random.default_rng(7).random((200, 4, 4, 1), dtype=np.float32)
    answers = SavedModel(folder / "saved_model").run({"image": images})
    label = np.column_stack([answers["probabilities"].argmax(axis=1), answers["box"]])
    np.savez_compressed(folder / "evaluation.npz", image=images[:100])
    np.savez_compressed(folder / "truth.npz", label=label[:100].astype(np.float32))
    np.savez_compressed(folder / "calibration.npz", image=images[100:])
    recipe, measures = {"variant_accuracy": 0.9}, {"accuracy": 1.0, "mean_iou": 1.0}
    told = {"model": "places", "task": "localization", "recipe": recipe, "measures": measures}
    write_training(folder, labels={}, **told)
    return folder


@pytest.mark.parametrize("variant", variants.NAMES)
def test_every_task_is_judged_by_its_own_measures(variant, boxes, tmp_path):
    root = tmp_path / "repository"
    export(ExportSettings(source=boxes, repository=root, variant=variant))
    told = read_card(root / f"places_{variant}" / "1").training
    assert told["variant"]["full"] == pytest.approx({"accuracy": 1.0, "mean_iou": 1.0}, abs=1e-5)
    assert told["measures"]["mean_iou"] > 0.9
    assert told["accuracy"] == {}


def test_one_measure_that_is_lost_is_enough_to_refuse(boxes, tmp_path, capsys, monkeypatch):
    lost = Judgement({"accuracy": 1.0, "mean_iou": math.nan})
    monkeypatch.setattr(pipeline, "judge", lambda *_, **__: lost)
    words = ["export", str(boxes), "--repository", str(tmp_path / "r"), "--variant", "fp16"]
    assert __main__.main(words) == 1
    told = capsys.readouterr().err
    assert "fp16 shows mean iou nan% on the test set, the full graph 100.00%" in told
    assert not (tmp_path / "r").exists()


def test_an_export_shows_the_measures_and_must_have_those_of_training(
    boxes, tmp_path, capsys, write_training
):
    assert __main__.main(["export", str(boxes), "--repository", str(tmp_path / "r")]) == 0
    assert "accuracy 100.00 %, mean iou 100.00 %" in capsys.readouterr().out
    measures = {"accuracy": 1.0, "mean_iou": 0.9}
    write_training(boxes, model="places", task="localization", labels={}, measures=measures)
    with pytest.raises(ParityFailed, match=r"training measured mean iou 90\.00% .* 100\.00%"):
        export(ExportSettings(source=boxes, repository=tmp_path / "r"))


def test_a_truth_of_another_length_is_refused(boxes, tmp_path):
    np.savez_compressed(boxes / "truth.npz", label=np.zeros((99, 5)))
    with pytest.raises(InvalidInput, match=r"must be equally long, received .*99"):
        export(ExportSettings(source=boxes, repository=tmp_path / "r"))


def test_what_the_tools_cannot_do_is_told_in_a_line(sure, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(variants, "convert_float_to_float16", fail)
    with pytest.raises(Unsupported, match="'classifier' cannot be turned into fp16: no kernel"):
        export(ExportSettings(source=sure, repository=tmp_path / "r", variant="fp16"))


def test_what_no_product_needs_keeps_its_precision():
    graph = onnx.parser.parse_graph(
        "g (float[N,2] x, float[2,2] w) => (float[N,2] y, int64[N] best) {"
        "a = Relu(x) p = MatMul(a, w) y = Softmax(p) best = ArgMax<axis=1, keepdims=0>(y) }"
    )
    for node in graph.node:
        node.name = node.op_type
    assert variants.behind_products(graph) == ["ArgMax", "Softmax"]


def test_what_the_last_product_gives_is_not_rounded_and_what_the_next_one_reads_is():
    graph = onnx.parser.parse_graph(
        "g (float[N,2] x, float[2,2] w, float s, uint8 z) => (float[N,2] y) {"
        "a = MatMul(x, w) qa = QuantizeLinear(a, s, z) da = DequantizeLinear(qa, s, z)"
        "b = MatMul(da, w) qb = QuantizeLinear(b, s, z) db = DequantizeLinear(qb, s, z)"
        "y = Softmax(db) }"
    )
    for node in graph.node:
        node.name = node.op_type
    variants.keep_results(graph, read_by={"Softmax"})
    operators = [node.op_type for node in graph.node]
    assert operators == ["MatMul", "QuantizeLinear", "DequantizeLinear", "MatMul", "Softmax"]
    assert graph.node[-1].input[0] == "b"


def test_of_attention_only_products_are_rounded():
    graph = onnx.parser.parse_graph(
        "g (float[N,2] x, float[2,2] w) => (float[N,2] y) {"
        "a = MatMul(x, w) b = Softmax(a) y = MatMul(b, w) }"
    )
    for place, node in enumerate(graph.node):
        node.name = str(place)
    rounded = variants.operators(graph, behind=set(variants.behind_products(graph)))
    assert "MatMul" in rounded
    assert not {"Add", "Mul", "Softmax"} & set(rounded)
    assert variants.operators(graph, behind={"1"}) is None
