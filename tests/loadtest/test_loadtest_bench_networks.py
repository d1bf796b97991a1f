"""The networks of the benchmarks: their costs worked out by hand, their answers sane."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from loadtest.bench import networks
from ridgeline import graph
from ridgeline.cost import ModelCost
from ridgeline.errors import NotFound
from ridgeline.model import spec_of
from ridgeline.repository import MODEL_FILE, check_digests, read_card, scan

ROOT = Path(__file__).parents[2]


def answer(model: bytes, *, rows):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    images = np.random.default_rng(0).random((rows, *tensor.shape[1:]), dtype=np.float32)
    return images, lambda batch: session.run(["probabilities"], {tensor.name: batch})[0]


def test_lenet5_costs_what_the_trained_one_does():
    cost = graph.cost_of(networks.lenet5(), batches=True)
    convolutions = 25 * 6 * 28**2 + 25 * 6 * 16 * 10**2 + 25 * 16 * 120
    assert cost.multiply_adds_per_sample == convolutions + 120 * 84 + 84 * 10 == 416_520
    assert cost.parameters == 61_706


def test_cnn78_is_a_network_of_78_mflop():
    cost = graph.cost_of(networks.cnn78(), batches=True)
    blocks = [
        9 * (before * after + after * after) * side**2
        for before, after, side in ((3, 32, 32), (32, 64, 16), (64, 128, 8))
    ]
    expected = sum(blocks) + 128 * 4 * 4 * 128 + 128 * 10
    assert cost.multiply_adds_per_sample == expected
    assert cost.multiply_adds_per_sample == pytest.approx(39e6, rel=0.02)
    assert cost.flops_per_sample == pytest.approx(78e6, rel=0.02)


def test_resnet50_has_the_published_size():
    model = networks.NETWORKS["resnet50"].build()
    cost = graph.cost_of(model, batches=True)
    assert cost.multiply_adds_per_sample == pytest.approx(4.1e9, rel=0.01)
    assert cost.parameters == pytest.approx(25.5e6, rel=0.01)
    found = graph.layers(model, batches=True)
    # 50 layers: 1 + 16 blocks of 3 + 1; beside them, the projections of four shortcuts.
    assert len(found) == 1 + 3 * (3 + 4 + 6 + 3) + 1 + 4
    _, ask = answer(model.SerializeToString(), rows=1)
    (row,) = ask(np.full((1, 224, 224, 3), 0.5, dtype=np.float32))
    assert row.shape == (1000,)
    assert np.isfinite(row).all()
    assert row.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["lenet5", "cnn78"])
def test_each_row_of_a_batch_is_answered_as_if_alone(name):
    images, ask = answer(networks.NETWORKS[name].build().SerializeToString(), rows=5)
    together = ask(images)
    assert together.shape == (5, 10)
    assert np.isfinite(together).all()
    assert together.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    alone = np.concatenate([ask(image[None]) for image in images])
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(np.unique(together, axis=0)) == 5  # the answer follows the input


def test_the_weights_are_the_same_each_time():
    assert networks.lenet5().SerializeToString() == networks.lenet5().SerializeToString()


def test_what_is_written_is_a_published_model_with_its_cost(tmp_path):
    (directory,) = networks.write(["lenet5"], root=tmp_path / "repository")
    (model,) = scan(tmp_path / "repository")
    config = model.read_config()
    spec = spec_of(config)
    assert (spec.name, spec.max_batch_size) == ("lenet5", 64)
    assert [(t.name, t.datatype, t.shape) for t in spec.inputs] == [("image", "FP32", (32, 32, 1))]
    assert [(t.name, t.shape) for t in spec.outputs] == [("probabilities", (10,))]
    card = read_card(directory)
    check_digests(directory, card=card)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert ModelCost.from_parameters(parameters) == card.cost
    written = onnx.load(directory / MODEL_FILE)
    assert [opset.version for opset in written.opset_import] == [18]


def test_what_is_there_is_not_written_again(tmp_path):
    root = tmp_path / "repository"
    networks.write(["lenet5"], root=root)
    (directory,) = networks.write(["lenet5", "cnn78"], root=root)
    assert directory == root / "cnn78" / "1"
    assert [model.versions for model in scan(root)] == [(1,), (1,)]


def test_an_unknown_name_is_refused_before_anything_is_written(tmp_path):
    root = tmp_path / "repository"
    with pytest.raises(NotFound, match="no network 'vgg'; there are softmax784, perceptron"):
        networks.write(["lenet5", "vgg"], root=root)
    assert not root.exists()


def test_the_command_writes_what_it_is_told_and_says_where(tmp_path):
    def call(*names):
        return subprocess.run(
            [sys.executable, "-m", "loadtest.bench.networks", str(tmp_path / "repository"), *names],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = call("lenet5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("repository/lenet5/1\n")
    done = call("vgg")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("networks: there is no network 'vgg'")
