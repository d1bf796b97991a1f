"""Export from a SavedModel to a published version, and everything it refuses."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from export import judging, pipeline
from export.convert import convert
from export.parity import Accuracy
from export.pipeline import export
from export.saved_model import SavedModel
from export.settings import ExportSettings
from ridgeline import __main__
from ridgeline.cost import ModelCost
from ridgeline.errors import (
    CorruptData,
    InvalidInput,
    NotFound,
    ParityFailed,
    TargetMissed,
    Unsupported,
    WrongUsage,
)
from ridgeline.repository import check_digests, read_card, read_labels, scan


@pytest.fixture
def root(tmp_path):
    return tmp_path / "repository"


def test_an_artifact_becomes_a_published_version_with_its_proof(artifact, root):
    result = export(ExportSettings(source=artifact, repository=root))
    (model,) = scan(root)
    assert (model.name, model.versions) == ("classifier", (1,))
    card = read_card(model.version_directory(1))
    check_digests(model.version_directory(1), card=card)
    assert card.cost.multiply_adds_per_sample == 16 * 3
    assert card.parity["top1_agreement"] == 1.0
    assert card.parity["max_relative_error"] <= 1e-5
    assert card.parity["batch_sizes"] == [1, 3, 8, 64]
    assert card.training["accuracy"]["exported"] == card.training["accuracy"]["trained"]
    assert result["accuracy"]["exported"]["samples"] == 100
    assert result["cost"]["flops_per_sample"] == 96


def test_the_configuration_carries_cost_and_labels(artifact, root):
    export(ExportSettings(source=artifact, repository=root, max_batch_size=16))
    (model,) = scan(root)
    config = model.read_config()
    assert config.max_batch_size == 16
    assert config.HasField("dynamic_batching")
    assert read_labels(model.directory, config) == {"probabilities": ("cat", "dog", "bird")}
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert ModelCost.from_parameters(parameters).multiply_adds_per_sample == 48


def test_the_published_graph_has_the_names_of_the_signature_and_a_free_batch_axis(artifact, root):
    export(ExportSettings(source=artifact, repository=root))
    session = onnxruntime.InferenceSession(root / "classifier" / "1" / "model.onnx")
    (image,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", 4, 4, 1])
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["batch", 3])
    for rows in (1, 5):
        (found,) = session.run(None, {"image": np.ones((rows, 4, 4, 1), dtype=np.float32)})
        assert found.shape == (rows, 3)


def test_the_golden_file_holds_what_the_graph_answers(artifact, root):
    export(ExportSettings(source=artifact, repository=root))
    folder = root / "classifier" / "1"
    golden = np.load(folder / "golden.npz")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(None, {"image": golden["input:image"]})
    np.testing.assert_allclose(found, golden["output:probabilities"], rtol=1e-5)


def test_several_inputs_and_outputs_keep_their_names(two_in_two_out):
    model = convert(SavedModel(two_in_two_out), name="sums")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    a, b = np.ones((2, 2), dtype=np.float32), np.full((2, 2), 5, dtype=np.float32)
    total, scaled = session.run(["total", "z_scaled"], {"a": a, "b": b})
    assert (total == 6).all()
    assert (scaled == 2).all()


def test_a_bare_saved_model_is_exported_under_its_folder_s_name(two_in_two_out, root):
    result = export(ExportSettings(source=two_in_two_out, repository=root))
    assert result["name"] == two_in_two_out.name
    assert result["accuracy"] == {}
    assert scan(root)[0].name == two_in_two_out.name


def test_a_second_export_is_the_second_version(artifact, root):
    settings = ExportSettings(source=artifact, repository=root, name="animals")
    assert [export(settings)["version"] for _ in range(2)] == [1, 2]


def published(root):
    return scan(root) if root.exists() else []


def test_an_artifact_below_its_target_is_refused(artifact, root, write_training):
    write_training(artifact, reached=False, test_accuracy=0.2)
    with pytest.raises(TargetMissed, match=r"its accuracy is 0\.2, its recipe requires 0\.3"):
        export(ExportSettings(source=artifact, repository=root))
    assert published(root) == []


def test_a_failed_proof_publishes_nothing(artifact, root, monkeypatch):
    monkeypatch.setattr(
        pipeline, "runner", lambda *_, **__: lambda inputs: {"probabilities": wrong(inputs)}
    )
    with pytest.raises(ParityFailed, match="relative error"):
        export(ExportSettings(source=artifact, repository=root))
    assert published(root) == []


def wrong(inputs):
    return np.full((len(inputs["image"]), 3), 1 / 3, dtype=np.float32)


def test_another_accuracy_after_export_publishes_nothing(artifact, root, monkeypatch):
    counts = iter([Accuracy(correct=40, samples=100), Accuracy(correct=39, samples=100)])
    monkeypatch.setattr(judging, "accuracy", lambda *_, **__: next(counts))
    with pytest.raises(ParityFailed, match=r"before export 40 of 100 samples .* after it 39"):
        export(ExportSettings(source=artifact, repository=root))
    assert published(root) == []


def test_a_folder_that_is_neither_is_told_what_is_missing(tmp_path, root):
    with pytest.raises(NotFound, match="neither an artifact"):
        export(ExportSettings(source=tmp_path, repository=root))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"image": np.zeros((2, 4, 4, 1))},
            r"'image' of the evaluation set is float64 \[2, 4, 4, 1",
        ),
        ({"image": np.zeros((2, 5, 4, 1), "f4")}, r"expects FP32 \[-1, 4, 4, 1\]"),
        ({"image": np.zeros((2, 4, 4), "f4")}, r"is float32 \[2, 4, 4\]"),
        ({"label": np.zeros(3, int)}, "equally many samples, received {'image': 2, 'label': 3}"),
        ({"label": np.zeros(2)}, r"one whole number a sample, received float64 \[2\]"),
        ({"label": np.zeros((2, 3), int)}, r"received int64 \[2, 3\]"),
        ({"image": np.zeros((0, 4, 4, 1), "f4"), "label": np.zeros(0, int)}, "'image': 0"),
    ],
)
def test_an_evaluation_set_that_does_not_fit_is_told(artifact, root, changed, told):
    right = {"image": np.zeros((2, 4, 4, 1), "f4"), "label": np.zeros(2, int)}
    np.savez(artifact / "evaluation.npz", **(right | changed))
    with pytest.raises(InvalidInput, match=told):
        export(ExportSettings(source=artifact, repository=root))
    assert published(root) == []


@pytest.mark.parametrize(
    "labels", [None, ["cat"], {"probabilities": "cat"}, {"probabilities": ["cat", "a\nb"]}]
)
def test_class_names_that_are_no_lists_of_lines_are_told(artifact, root, write_training, labels):
    write_training(artifact, labels=labels)
    with pytest.raises(CorruptData, match="'labels' must map each output to a list of names"):
        export(ExportSettings(source=artifact, repository=root))


def test_class_names_of_an_unknown_output_are_told(artifact, root, write_training):
    write_training(artifact, labels={"names": ["cat"]})
    with pytest.raises(InvalidInput, match="labels are given for 'names'"):
        export(ExportSettings(source=artifact, repository=root))
    assert published(root) == []


def test_the_accuracy_is_that_of_the_output_with_class_names(tf, save, artifact, root):
    """`a_margin` comes first by name, and would be right on every sample of class 0."""

    def function(image):
        flat = tf.reshape(image, (-1, 16))
        return {"a_margin": flat[:, :1], "scores": flat[:, :2]}

    folder = save(function, *(4, 4, 1), name="image")
    (artifact / "saved_model").unlink()
    (artifact / "saved_model").symlink_to(folder)
    table = json.loads((artifact / "training.json").read_text())
    table["labels"] = {"scores": ["left", "right"]}
    (artifact / "training.json").write_text(json.dumps(table))
    image = np.zeros((4, 4, 4, 1), "f4")
    image[1:, 0, 1] = 1.0  # the second score is the larger one for three of four
    np.savez(artifact / "evaluation.npz", image=image, label=np.array([0, 1, 1, 0]))
    result = export(ExportSettings(source=artifact, repository=root))
    assert result["accuracy"]["exported"] == {"accuracy": 0.75, "correct": 3, "samples": 4}


def test_a_damaged_training_file_is_told(artifact, root):
    (artifact / "training.json").write_text("{")
    with pytest.raises(CorruptData, match=r"training\.json is not JSON"):
        export(ExportSettings(source=artifact, repository=root))
    (artifact / "training.json").write_text("[]")
    with pytest.raises(CorruptData, match="must hold an object, received a list"):
        export(ExportSettings(source=artifact, repository=root))


def test_an_artifact_without_its_files_is_told(artifact, root):
    data = (artifact / "evaluation.npz").read_bytes()
    (artifact / "evaluation.npz").write_bytes(data[:100])
    with pytest.raises(CorruptData, match=r"evaluation\.npz cannot be read"):
        export(ExportSettings(source=artifact, repository=root))
    (artifact / "evaluation.npz").unlink()
    with pytest.raises(NotFound, match=r"evaluation\.npz is missing"):
        export(ExportSettings(source=artifact, repository=root))
    (artifact / "saved_model").unlink()
    with pytest.raises(NotFound, match="holds no saved_model"):
        export(ExportSettings(source=artifact, repository=root))


def test_an_evaluation_set_with_other_inputs_is_told(artifact, root):
    np.savez(artifact / "evaluation.npz", picture=np.zeros((2, 4, 4, 1), "f4"), label=np.zeros(2))
    with pytest.raises(InvalidInput, match=r"has the inputs \['picture'\]"):
        export(ExportSettings(source=artifact, repository=root))


def test_a_fixed_first_axis_is_refused(tf, tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": 2.0 * x}, input_signature=[tf.TensorSpec((3, 2), tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(InvalidInput, match=r"first axis of 'x' must be free.*received \[3, 2\]"):
        SavedModel(tmp_path)


def test_an_operator_without_onnx_is_named(tf, save, root, capfd):
    source = save(lambda x: {"y": tf.math.erfc(x)}, 2)
    with pytest.raises(Unsupported, match=r"no ONNX for these operators of 'odd': Erfc \(.*Erfc\)"):
        export(ExportSettings(source=source, repository=root, name="odd"))
    assert published(root) == []
    assert capfd.readouterr().err == ""


def test_an_operator_that_onnx_runtime_lacks_is_named(tf, save, root):
    kernel = np.ones((3, 3, 1, 1))
    source = save(lambda x: {"y": tf.nn.conv2d(x, kernel, 1, "VALID")}, *(5, 5, 1), kind=tf.float64)
    with pytest.raises(Unsupported, match=r"(?s)cannot load the graph of 'odd'.*Conv"):
        export(ExportSettings(source=source, repository=root, name="odd"))
    assert published(root) == []


def test_an_input_and_an_output_of_one_name_are_refused(save, root):
    source = save(lambda x: {"x": x + 1.0}, 2)
    with pytest.raises(Unsupported, match="calls an input and an output 'x'"):
        export(ExportSettings(source=source, repository=root))


def test_a_renamed_output_that_a_branch_reads_is_renamed_there_too(tf, save):
    def function(x):
        y = x + 1.0
        return {"y": y, "z": tf.cond(tf.reduce_sum(x) > 0, lambda: y * 3.0, lambda: y * 2.0)}

    model = convert(SavedModel(save(function, 2)), name="branches")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    y, z = session.run(["y", "z"], {"x": np.ones((1, 2), dtype=np.float32)})
    assert (y == 2).all()
    assert (z == 6).all()


def test_the_largest_batch_is_proven_at_its_size_and_no_larger_one_is(save, root):
    source = save(lambda x: {"y": 2.0 * x}, 2)
    for size, sizes in ((1, [1]), (100, [1, 3, 8, 100])):
        settings = ExportSettings(source=source, repository=root, max_batch_size=size)
        assert list(export(settings)["parity"]["batch_sizes"]) == sizes


def test_the_tolerance_can_be_set(tf, save, root):
    source = save(lambda x: {"y": tf.nn.softmax(x)}, 50)
    with pytest.raises(ParityFailed, match="allowed 1e-12"):
        export(ExportSettings(source=source, repository=root, relative_tolerance=1e-12))
    assert published(root) == []
    result = export(ExportSettings(source=source, repository=root, relative_tolerance=1e-3))
    assert result["parity"]["relative_tolerance"] == 1e-3


def test_why_a_cost_is_open_is_logged(save, root, caplog):
    export(ExportSettings(source=save(lambda x: {"y": 2.0 * x}, None), repository=root))
    assert "published without its cost: the cost is open: axis 1 of input 'x'" in caplog.text


def test_a_saved_model_without_serving_signature_is_refused(tf, tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(InvalidInput, match="needs the signature 'serving_default', found none"):
        SavedModel(tmp_path)


def test_a_damaged_saved_model_is_told(tmp_path, root):
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(CorruptData, match="cannot be loaded as a SavedModel"):
        export(ExportSettings(source=tmp_path, repository=root))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_batch_size": 0}, "--max-batch-size must be positive, received 0"),
        ({"relative_tolerance": 0.0}, "--relative-tolerance must be between 0 and 1, received 0"),
        ({"relative_tolerance": float("nan")}, "must be between 0 and 1, received nan"),
    ],
)
def test_settings_refuse_nonsense(tmp_path, wrong, told):
    with pytest.raises(WrongUsage, match=told):
        ExportSettings(source=tmp_path, repository=tmp_path, **wrong)


def test_whole_numbers_make_golden_inputs_too(tf, tmp_path, root):
    module = tf.Module()
    module.serve = tf.function(
        lambda words: {"first": tf.cast(words[:, :1], tf.float32)},
        input_signature=[tf.TensorSpec((None, None), tf.int64, name="words")],
    )
    tf.saved_model.save(module, str(tmp_path / "lm"), signatures={"serving_default": module.serve})
    result = export(ExportSettings(source=tmp_path / "lm", repository=root))
    assert result["cost"] is None  # the length of the sentence is free
    assert scan(root)[0].read_config().input[0].dims == [-1]


def test_the_command_tells_people_and_machines(artifact, root, capsys):
    words = ["export", str(artifact), "--repository", str(root)]
    assert __main__.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["directory"] == str(root / "classifier" / "1")
    assert __main__.main([*words, "--name", "again"]) == 0
    shown = capsys.readouterr().out
    assert "FLOPs per sample" in shown
    assert "accuracy, exported" in shown
    assert __main__.main(["export", str(root / "none")]) == 1
    assert "neither an artifact" in capsys.readouterr().err


def test_the_graph_is_checked_by_onnx_itself(saved_model):
    model = convert(SavedModel(saved_model), name="classifier")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 18
