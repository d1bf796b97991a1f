"""Predictions on machines that are made up, and once from real times of small networks."""

import json

import numpy as np
import pytest

from loadtest import calibration
from loadtest.bench import networks
from loadtest.prediction import Point, fit, learn
from ridgeline import hardware
from ridgeline.__main__ import main
from ridgeline.errors import CorruptData, InvalidInput, NotFound

FACTORS = {"dense": 2.0, "thin": 8.0}


def points(*, models=8, noise=0.0, seed=0):
    """Networks whose operators stay away from the roofline by FACTORS, and 5 us for a call."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(models):
        dense, thin = 10.0 ** random.uniform(4, 8), 10.0 ** random.uniform(3, 7)
        for size in (1, 4, 16):
            estimate = {"dense": size * dense, "thin": size * thin}
            time = 5000 + sum(FACTORS[kind] * value for kind, value in estimate.items())
            time *= random.lognormal(0, noise) if noise else 1
            found.append(Point(f"net{number}", size, time, estimate))
    return found


def test_factors_are_found_again():
    found = fit(points())
    assert found.factors["dense"] == pytest.approx(2, rel=0.1)
    assert found.factors["thin"] == pytest.approx(8, rel=0.1)
    assert found.predict_ns({"dense": 1e6}) == pytest.approx(2e6, rel=0.15)


def test_networks_left_out_are_predicted_and_the_interval_holds_them():
    summary = learn(points(noise=0.1, models=12)).summary
    assert (summary["models"], summary["points"]) == (12, 36)
    assert summary["median_error"] < 0.15
    assert summary["interval_held"] >= 0.85


def test_the_interval_encloses_the_prediction():
    time_ns, low_ns, high_ns = learn(points(noise=0.1)).predict_ns({"dense": 1e6, "thin": 1e6})
    assert low_ns < time_ns < high_ns


def test_a_kind_that_no_network_holds_takes_the_common_factor():
    found = fit(points())
    assert found.predict_ns({"unseen": 1e6}) == pytest.approx(
        found.overhead_ns + 1e6 * found.common
    )


def test_a_few_networks_teach_nothing():
    with pytest.raises(InvalidInput, match="at least 4 networks, received 3"):
        learn(points(models=3))


@pytest.fixture
def calibrated(monkeypatch):
    """The smallest networks stand for all, timed briefly."""
    monkeypatch.setattr(calibration, "_NETWORKS", ("softmax784", "perceptron", "lenet5", "cnn78"))
    monkeypatch.setattr(calibration, "_BATCH_SIZES", (1, 2))
    monkeypatch.setattr(calibration, "_SECONDS", 0.01)


@pytest.mark.usefixtures("calibrated")
def test_a_graph_is_predicted_without_running_it(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(networks.lenet5().SerializeToString())
    assert main(["predict", str(path), "--batch-size", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["low_ms"] <= found["predicted_ms"] <= found["high_ms"]
    assert found["low_ms"] >= found["floor_ms"]
    assert found["learned"]["models"] == 4
    assert len(found["left_out"]) == 8
    assert main(["predict", str(path)]) == 0  # the times were kept
    out, err = capsys.readouterr()
    assert "learned from 4 networks" in out
    assert "timing" not in err


def test_times_are_read_from_a_file_or_refused(tmp_path, capsys):
    machine = hardware.load()
    path = tmp_path / "times.json"
    path.write_text("{}")
    with pytest.raises(CorruptData, match="holds no times"):
        calibration.read(path, hardware=machine)
    with pytest.raises(NotFound, match="cannot read"):
        calibration.read(tmp_path / "none.json", hardware=machine)
    assert main(["predict", str(tmp_path / "none.onnx")]) == 1
    assert "there is no file" in capsys.readouterr().err
