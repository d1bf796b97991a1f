"""The form for one step at a time: what is published, what proves it, what is refused."""

import numpy as np
import onnxruntime
import pytest

from export.pipeline import export
from export.settings import ExportSettings
from ridgeline import __main__
from ridgeline.errors import ParityFailed, Unsupported, WrongUsage
from ridgeline.model import spec_of
from ridgeline.repository import read_card, scan


@pytest.fixture
def sums(tf, tmp_path):
    """sums(step): a SavedModel of x FP32 [-1,5,2] -> total, what came until then, and that step."""

    def save(step, **specs):
        module = tf.Module()
        module.whole = tf.function(
            lambda x: {"total": tf.cumsum(x, axis=1)},
            input_signature=[tf.TensorSpec((None, 5, 2), tf.float32, name="x")],
        )
        kinds = {"element": ((2,), tf.float32), "start": ((1,), tf.bool), **specs}
        module.step = tf.function(
            step,
            input_signature=[
                tf.TensorSpec((None, *shape), kind, name=name)
                for name, (shape, kind) in kinds.items()
            ],
        )
        signatures = {"serving_default": module.whole, "step": module.step}
        tf.saved_model.save(module, str(tmp_path / "sums"), signatures=signatures)
        return tmp_path / "sums"

    return save


@pytest.fixture
def right(tf, sums):
    """The step that does as the whole does, and counts."""

    def step(element, start, kept, count):
        total = element + tf.where(start, 0.0, kept)
        count = 1 + tf.where(start, 0, count)
        return {"total": total, "place": count, "next_kept": total, "next_count": count}

    return sums(step, kept=((2,), tf.float32), count=((1,), tf.int32))


def stateful(source, root, **changed):
    return export(ExportSettings(source=source, repository=root, stateful=True, **changed))


def test_a_step_is_published_beside_the_whole_with_states_that_the_server_keeps(right, tmp_path):
    root = tmp_path / "repository"
    export(ExportSettings(source=right, repository=root))
    result = stateful(right, root, max_batch_size=4)
    whole, step = scan(root)
    assert (whole.name, step.name, step.versions) == ("sums", "sums_step", (1,))
    config = step.read_config()
    assert [tensor.name for tensor in spec_of(config).inputs] == ["element"]
    assert [tensor.name for tensor in spec_of(config).outputs] == ["place", "total"]
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (4, False)
    batching = config.sequence_batching
    [control] = batching.control_input
    assert (control.name, list(control.control[0].bool_false_true)) == ("start", [False, True])
    assert [(s.input_name, s.output_name, list(s.dims)) for s in batching.state] == [
        ("count", "next_count", [1]),
        ("kept", "next_kept", [2]),
    ]
    assert result["cost"]["flops_per_sample"] == 0
    assert result["parity"]["batch_sizes"] == (1, 4)
    assert read_card(step.version_directory(1)).parity["max_relative_error"] <= 1e-5


def test_the_golden_file_holds_whole_sequences(right, tmp_path):
    stateful(right, tmp_path / "repository")
    folder = tmp_path / "repository" / "sums_step" / "1"
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    golden = np.load(folder / "golden.npz")
    assert golden["input:element"].shape == golden["output:total"].shape == (64, 5, 2)
    states = {"kept": np.zeros((64, 2), np.float32), "count": np.zeros((64, 1), np.int32)}
    for place in range(5):
        given = {"element": golden["input:element"][:, place], "start": np.full((64, 1), not place)}
        names = ["total", "place", "next_kept", "next_count"]
        total, count, kept, _ = session.run(names, {**given, **states})
        states = {"kept": kept, "count": count}
        np.testing.assert_allclose(total, golden["output:total"][:, place], rtol=1e-5)
        assert (golden["output:place"][:, place] == place + 1).all()


def test_a_step_that_does_not_begin_anew_is_found_out(tf, sums, tmp_path):
    def step(element, start, kept):
        total = element + kept + tf.where(start, 0.0, 0.0)
        return {"total": total, "next_kept": total}

    source = sums(step, kept=((2,), tf.float32))
    with pytest.raises(ParityFailed, match="'total' differs at batch size 1"):
        stateful(source, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_step_that_answers_otherwise_than_the_whole_is_found_out(tf, sums, tmp_path):
    def step(element, start, kept):
        total = element + 0.99 * tf.where(start, 0.0, kept)
        return {"total": total, "next_kept": total}

    source = sums(step, kept=((2,), tf.float32))
    with pytest.raises(ParityFailed, match="'total' differs at batch size 1"):
        stateful(source, tmp_path / "repository")


def test_a_step_without_states_is_none(tf, sums, tmp_path):
    source = sums(lambda element, start: {"total": tf.where(start, element, 0.0)})
    with pytest.raises(Unsupported, match=r"needs 'start' of BOOL, states with .*'element'"):
        stateful(source, tmp_path / "repository")


def test_a_step_over_something_else_than_an_element_is_none(tf, sums, tmp_path):
    def step(element, start, kept):
        total = tf.where(start, 0.0, kept) + element[:, :2]
        return {"total": total, "next_kept": total}

    source = sums(step, element=((3,), tf.float32), kept=((2,), tf.float32))
    with pytest.raises(Unsupported, match="one further input that is an element of the whole"):
        stateful(source, tmp_path / "repository")


def test_a_network_without_a_step_is_refused_in_one_line(artifact, tmp_path, capsys):
    words = ["export", str(artifact), "--stateful", "--repository", str(tmp_path / "repository")]
    assert __main__.main(words) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "'classifier' has no form for one step at a time, it is served whole" in line
    assert "needs the signature 'step', found serving_default" in line
    assert not (tmp_path / "repository").exists()


def test_a_step_has_no_variant(tmp_path):
    with pytest.raises(WrongUsage, match="--stateful and --variant"):
        ExportSettings(source=tmp_path, repository=tmp_path, stateful=True, variant="int8")
