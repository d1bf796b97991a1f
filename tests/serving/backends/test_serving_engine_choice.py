"""The choice of the CPU engine: by measurement, only where the answers agree, with its figures."""

import functools
import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from ridgeline.errors import InvalidInput
from ridgeline.repository import scan
from serving.backends import engine_choice
from serving.loading import load_version
from serving.onnx_engine import OnnxEngine
from serving.openvino_engine import OpenVinoEngine
from serving.widened_engine import WidenedEngine


@pytest.fixture
def load(repository, settings):
    """Loads version 1 of the only model, with the engine wished for."""

    def load(wish, **further):
        [model] = scan(repository.root)
        return load_version(
            model,
            version=1,
            settings=replace(settings, cpu_engine=wish, **further),
            on_engine=lambda _: None,
        )

    return load


@pytest.fixture
def speeds(monkeypatch):
    """Sets how long ONNX Runtime and OpenVINO take in trials: in batches, and for one row."""

    def speeds(batch: tuple[int, int], one: tuple[int, int]) -> None:
        times = [list(batch), list(one)]
        real = engine_choice.side_by_side_ns
        monkeypatch.setattr(
            engine_choice, "side_by_side_ns", lambda ways: real(ways) and times.pop(0)
        )
        known = engine_choice.measured_times

        def of_equal_sizes(spec, *, engine):
            times = known(spec, engine=engine)
            for rows in times.sizes:
                times.calibrate(rows=rows, took_ns=100_000_000 * rows)
            return times

        monkeypatch.setattr(engine_choice, "measured_times", of_equal_sizes)
        monkeypatch.setattr("serving.backends.onnxruntime.measured_times", of_equal_sizes)

    return speeds


def _recorded(loaded):
    return {
        key.removeprefix("ridgeline_"): value.string_value
        for key, value in loaded.config.parameters.items()
        if key.startswith(("ridgeline_engine", "ridgeline_trial"))
    }


def _narrow(engine):
    return engine.narrow if isinstance(engine, WidenedEngine) else engine


def test_nothing_is_tried_unless_it_is_asked_for(repository, models, load):
    repository.add("m", models.dense(8, 4))

    loaded = load("onnxruntime")

    assert isinstance(_narrow(loaded.engine), OnnxEngine)
    assert _recorded(loaded) == {}


@pytest.mark.parametrize(
    ("batch", "one", "chosen"),
    [
        ((1_100_000, 1_000_000), (1_000_000, 1_000_000), True),
        ((1_099_000, 1_000_000), (2_000_000, 1_000_000), False),  # not clearly faster
        ((2_000_000, 1_000_000), (900_000, 1_000_000), True),
        ((2_000_000, 1_000_000), (890_000, 1_000_000), False),  # too slow one at a time
    ],
)
def test_the_faster_engine_is_chosen_and_the_figures_are_recorded(
    repository, models, load, speeds, caplog, batch, one, chosen
):
    caplog.set_level(logging.INFO)
    repository.add("m", models.dense(8, 4))
    speeds(batch, one)

    loaded = load("fastest")

    assert isinstance(_narrow(loaded.engine), OpenVinoEngine if chosen else OnnxEngine)
    recorded = _recorded(loaded)
    engine = recorded["engine"]
    assert engine.startswith("openvino 20" if chosen else "onnxruntime 1")
    gain, gain_of_one = batch[0] / batch[1], one[0] / one[1]
    assert recorded["engine_reason"] == (
        f"OpenVINO is {gain:.2f} times as fast in batches, {gain_of_one:.2f} times on one row"
    )
    assert float(recorded["trial_onnxruntime_best_us"]) == batch[0] / 1000
    assert float(recorded["trial_openvino_one_row_us"]) == one[1] / 1000
    assert recorded["trial_openvino_best_rows"] == "1"
    assert f"model 'm' runs on {engine}" in caplog.text
    [answer] = loaded.engine.run({"x": np.ones((3, 8), np.float32)}, outputs=["y"])
    assert answer.tolist() == [[8] * 4] * 3


def test_the_configuration_of_a_model_goes_before_the_setting(repository, models, load):
    wish = 'parameters { key: "ridgeline_cpu_engine" value { string_value: "openvino" } }'
    repository.add("m", models.dense(8, 4), config=f"max_batch_size: 4 {wish}")

    loaded = load("onnxruntime")

    assert isinstance(_narrow(loaded.engine), OpenVinoEngine)
    assert loaded.service_time is not None
    assert loaded.config.parameters["ridgeline_cpu_engine"].string_value == "openvino"


def test_an_unknown_engine_in_the_configuration_is_refused(repository, models, load):
    wish = 'parameters { key: "ridgeline_cpu_engine" value { string_value: "abacus" } }'
    repository.add("m", models.dense(8, 4), config=wish)

    with pytest.raises(InvalidInput, match=r"ridgeline_cpu_engine must be .* received 'abacus'"):
        load("onnxruntime")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("identity BYTES", "'x' is BYTES"),
        ("identity BF16", "'x' is BF16"),
        ("identity FP32 free", "its shapes are free"),
        ("lookup 3", "or it refuses zeros"),
        ("there_and_back FP64", "computes in f64"),
    ],
)
def test_a_model_that_openvino_cannot_take_stays_and_says_why(
    repository, models, load, caplog, model, reason
):
    made = {
        "identity BYTES": lambda: models.identity("BYTES"),
        "identity BF16": lambda: models.identity("BF16"),
        "identity FP32 free": lambda: models.identity(shape=("batch", "length")),
        "lookup 3": lambda: models.lookup(offset=3),
        "there_and_back FP64": lambda: models.there_and_back("FP64"),
    }
    repository.add("m", made[model]())

    loaded = load("openvino")

    assert isinstance(_narrow(loaded.engine), OnnxEngine)
    assert reason in _recorded(loaded)["engine_reason"]
    assert f"model 'm' stays with ONNX Runtime: {_recorded(loaded)['engine_reason']}" in caplog.text


def _spoiled(monkeypatch, spoil):
    run = OpenVinoEngine.run

    def spoiled(self, inputs, /, **options):
        return spoil(run(self, inputs, **options))

    monkeypatch.setattr(OpenVinoEngine, "run", spoiled)


def _fails(_arrays):
    raise RuntimeError("a kernel failed")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda arrays: [a * np.float32(1.001) for a in arrays], r"'y' differs by 1\.0e-03 of"),
        (lambda arrays: [a * np.nan for a in arrays], "'y' differs by inf of"),
        (lambda arrays: [a[:, 1:] for a in arrays], r"'y' is float32 \[1, 3\] in OpenVINO"),
        (_fails, "fails on the trial inputs: a kernel failed"),
    ],
)
def test_an_engine_that_answers_otherwise_is_not_chosen(
    repository, models, load, monkeypatch, spoil, reason
):
    repository.add("m", models.dense(8, 4))
    _spoiled(monkeypatch, spoil)

    loaded = load("openvino")

    assert isinstance(_narrow(loaded.engine), OnnxEngine)
    assert re.search(reason, _recorded(loaded)["engine_reason"])


def test_a_difference_in_the_last_bits_is_none(repository, models, load, monkeypatch):
    repository.add("m", models.dense(8, 4))
    _spoiled(monkeypatch, lambda arrays: [a * np.float32(1.00001) for a in arrays])

    assert isinstance(_narrow(load("openvino").engine), OpenVinoEngine)


def test_a_batch_that_runs_alone_stays_in_the_chosen_engine(repository, models, load, monkeypatch):
    repository.add("m", models.dense(8, 4))
    built = []

    def remember(narrow, *, build_wide, **_):
        built.append(build_wide(True))
        return narrow

    monkeypatch.setattr("serving.backends.onnxruntime.widened", remember)

    load("openvino")

    assert [type(engine) for engine in built] == [OpenVinoEngine]


def test_engines_are_compared_on_the_golden_inputs_of_a_version(
    repository, models, load, monkeypatch
):
    folder = repository.add("m", models.dense(2, 2))
    np.savez(folder / "golden.npz", **{"input:x": np.array([[1, 2], [3, 4]], np.float32)})
    seen = []
    run = OpenVinoEngine.run

    def remember(self, inputs, /, **options):
        seen.append(inputs["x"].tolist())
        return run(self, inputs, **options)

    monkeypatch.setattr(OpenVinoEngine, "run", remember)

    load("openvino")

    assert seen[0] == [[1, 2]]


@pytest.mark.parametrize(
    "golden",
    [
        lambda path: path.write_bytes(b"no archive"),
        functools.partial(np.savez, **{"input:x": np.ones((2, 3), np.float32)}),
        functools.partial(np.savez, **{"input:x": np.ones((2, 2))}),
        functools.partial(np.savez, **{"input:z": np.ones((2, 2), np.float32)}),
    ],
)
def test_golden_inputs_that_do_not_fit_are_passed_over(repository, models, load, golden):
    folder = repository.add("m", models.dense(2, 2))
    golden(folder / "golden.npz")

    assert isinstance(_narrow(load("openvino").engine), OpenVinoEngine)
