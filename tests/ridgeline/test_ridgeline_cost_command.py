import json

import pytest

from loadtest.bench import networks
from ridgeline import hardware
from ridgeline.__main__ import main
from tests.ridgeline.test_ridgeline_roofline import MACHINE


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    monkeypatch.setattr(hardware, "load", lambda: MACHINE)


@pytest.fixture
def lenet5(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(networks.lenet5().SerializeToString())
    return str(path)


def test_the_cost_of_a_graph_is_told_for_any_batch(lenet5, capsys):
    assert main(["cost", lenet5, "--batch-size", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flops"] == 8 * 833_040
    assert found["multiply_adds_per_sample"] == 416_520
    # 6,664,320 FLOPs at 100 GFLOP/s.
    assert found["floor_ns"] == pytest.approx(66_643.2)
    assert found["estimate_ns"] > found["floor_ns"] >= found["simple_floor_ns"]
    assert sum(each["multiply_adds"] for each in found["operators"]) == 8 * 416_520


def test_people_get_a_table(lenet5, capsys):
    assert main(["cost", lenet5, "--shape", "image=2,32,32,1"]) == 0
    out = capsys.readouterr().out
    assert "lenet5, batch size 1" in out
    assert "416,520" not in out  # whole shapes leave no single sample to speak of
    assert "833,040 multiply-adds" in out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--batch-size", "0"], "must be positive"),
        (["--shape", "image"], "must be INPUT=1,224,224,3"),
        (["--shape", "image=1,0"], "must be INPUT=1,224,224,3"),
        (["--shape", "image=1,32,32,1", "--batch-size", "2"], "leave --batch-size away"),
    ],
)
def test_flags_of_no_sense_are_wrong_usage(lenet5, capsys, flags, told):
    assert main(["cost", lenet5, *flags]) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_missing_is_named(capsys):
    assert main(["cost", "none.onnx"]) == 1
    assert "there is no file none.onnx" in capsys.readouterr().err
