"""Several workers on loopback: the curve of one process, one artifact, and no one left waiting."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.children import side_by_side
from ridgeline.errors import InvalidInput, StepFailed, Unavailable
from training.workers import Workers, read_cluster

pytestmark = pytest.mark.timeout(300)  # up to three processes that load TensorFlow each
ROOT = Path(__file__).parents[2]
RECIPE = """
description = "a quick run"
model = "lenet5"
dataset = "mnist"
epochs = {epochs}
batch_size = 50
seed = 3
validation_samples = 200
training_samples = 424
required_accuracy = 0.1

[optimizer]
learning_rate = 0.05
"""


def run(folder: Path, *words: object, epochs: int = 2) -> list[str]:
    recipe = folder / "quick.toml"
    recipe.write_text(RECIPE.format(epochs=epochs), encoding="utf-8")
    command = [sys.executable, "-m", "ridgeline", "train", str(recipe)]
    return [*command, "--output", str(folder / "out"), "--json", *map(str, words)]


def result(words: list[str], **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        words,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_workers_have_the_loss_curve_of_one_process(tmp_path: Path) -> None:
    """Only the order of sums differs: some units in the last of 24 bits, in each of 18 steps."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = result(run(tmp_path / "one"))
    two = result(run(tmp_path / "two", "--workers", 2))
    assert one["curve"][1]["val_loss"] < one["curve"][0]["val_loss"] < 2.3  # it has learned
    for figure in ("loss", "val_loss"):
        alone, together = ([point[figure] for point in run["curve"]] for run in (one, two))
        assert together == pytest.approx(alone, rel=1e-4)
    for figure in ("accuracy", "val_accuracy"):  # one sample of 200 may fall to the other side
        alone, together = ([point[figure] for point in run["curve"]] for run in (one, two))
        assert together == pytest.approx(alone, abs=1.01 / 200)
    assert sorted(path.name for path in (tmp_path / "two/out").iterdir()) == ["lenet5"]
    assert (tmp_path / "two/out/lenet5/saved_model/saved_model.pb").is_file()


def test_killed_workers_go_on_together_where_they_were(tmp_path: Path) -> None:
    words = run(tmp_path, "--workers", 2, "--log-level", "info", epochs=30)
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "epoch 2 of 30" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(250) == 1, "".join(lines)
    [kept] = (tmp_path / "out").iterdir()
    assert kept.suffix == ".checkpoint"
    told = json.loads(str(np.load(kept)["curve"]))
    again = result(words)["curve"]
    assert again[: len(told)] == told
    assert [point["epoch"] for point in again] == list(range(1, 31))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lenet5"]


def test_a_worker_that_fails_ends_the_others_too() -> None:
    cluster = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}}
    good = json.dumps({**cluster, "task": {"type": "worker", "index": 0}})
    environments = [{"TF_CONFIG": good}, {"TF_CONFIG": "nonsense"}]
    with pytest.raises(StepFailed, match=r"process 1 of 2 .* code 1: .*TF_CONFIG must name"):
        side_by_side("train", "perceptron", environments=environments)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "must name cluster.worker and task"),
        ("[]", "must name cluster.worker and task"),
        ('{"cluster": {"worker": ["a:1"]}}', "must name cluster.worker and task"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "workers alone"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "among them"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": []}, "task": {"type": "worker", "index": 0}}',
            "workers alone",
        ),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_cluster(text)


def test_a_batch_is_shared_out_without_rest_or_overlap() -> None:
    parts = [Workers(rank=rank, count=3).part(np.arange(12)) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert sorted(np.concatenate(parts)) == list(range(12))
    assert Workers(rank=1, count=3).whole(425, batch_size=30) == 423
    with pytest.raises(InvalidInput, match="a batch of 50 samples has no 3 equal parts"):
        Workers(rank=1, count=3).whole(425, batch_size=50)


def test_workers_that_do_not_see_the_same_checkpoint_are_told() -> None:
    class Others(Workers):
        """Two, of whom the other one begins anew."""

        def agreed(self, figures: dict[str, float], /) -> dict[str, float]:
            return {name: value / 2 for name, value in figures.items()}

    with pytest.raises(Unavailable, match="goes on after epoch 3, others after another one"):
        Others(rank=0, count=2).check_same(3)
    Others(rank=0, count=2).check_same(0)
