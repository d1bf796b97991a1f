"""The stage that mosec runs, without mosec: raw numbers in, raw numbers out, as the model says."""

import sys
import types

import numpy as np
import pytest

from loadtest.bench import mosec_server


class RefusedBody(Exception):
    """Stands for mosec's ValidationError."""


class Server:
    """Keeps the stage that it is given, as the real one would start it."""

    def append_worker(self, worker, **settings):
        type(self).stage, type(self).settings = worker, settings

    def run(self):
        pass


@pytest.fixture
def stage(tmp_path, models, monkeypatch):
    """Starts the server over y = (sum of two numbers) x (1, 1, 1), and returns its stage."""
    path = tmp_path / "model.onnx"
    path.write_bytes(models.dense(2, 3))
    fake = types.ModuleType("mosec")
    fake.Server, fake.Worker, fake.ValidationError = Server, object, RefusedBody
    monkeypatch.setitem(sys.modules, "mosec", fake)

    def start(*, max_batch_size):
        flags = {"model": path, "workers": 2, "max-wait-ms": 1, "threads": 1, "port": 80}
        flags["max-batch-size"] = max_batch_size
        words = [f"--{name}={value}" for name, value in flags.items()]
        monkeypatch.setattr(sys, "argv", ["mosec_server.py", *words])
        mosec_server.main()
        return Server.stage()

    return start


def body(*numbers):
    return np.array(numbers, dtype="<f4").tobytes()


def test_a_batch_is_answered_sample_by_sample(stage, capsys):
    engine = stage(max_batch_size=4)
    assert capsys.readouterr().out == f"{mosec_server.READY}\n"
    batch = [engine.deserialize(body(1, 2)), engine.deserialize(body(30, 40))]
    answers = [engine.serialize(answer) for answer in engine.forward(batch)]
    assert answers == [body(3, 3, 3), body(70, 70, 70)]


def test_without_batches_one_sample_comes_alone(stage):
    engine = stage(max_batch_size=1)
    assert engine.serialize(engine.forward(engine.deserialize(body(1, 2)))) == body(3, 3, 3)


@pytest.mark.parametrize("wrong", [b"", b"abc", body(1), body(1, 2, 3)])
def test_a_body_of_another_size_is_refused(stage, wrong):
    with pytest.raises(RefusedBody):
        stage(max_batch_size=4).deserialize(wrong)


def test_mosec_is_told_of_workers_and_batches(stage):
    stage(max_batch_size=4)
    assert Server.settings == {
        "num": 2,
        "max_batch_size": 4,
        "max_wait_time": 1,
        "start_method": "fork",
    }
