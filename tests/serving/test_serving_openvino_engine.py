"""OpenVINO as engine: the same contract and answers as ONNX Runtime's, in float32 or not at all."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ridgeline.errors import Unsupported
from serving import openvino_engine
from serving.engine import EngineSettings
from serving.onnx_engine import OnnxEngine
from serving.openvino_engine import OpenVinoEngine


@pytest.fixture
def load(tmp_path):
    """Loads an engine from the bytes of a model."""

    def load(model: bytes, *, streams: int = 2) -> OpenVinoEngine:
        path = tmp_path / "model.onnx"
        path.write_bytes(model)
        like = OnnxEngine(path, settings=EngineSettings(threads=1))
        return OpenVinoEngine(path, like=like, threads=1, streams=streams)

    return load


def test_only_the_outputs_asked_for_are_given_in_their_order(load, models):
    engine = load(models.two_inputs())
    inputs = {"a": np.full((1, 3), 5, np.float32), "b": np.full((1, 3), 3, np.float32)}

    assert [a.tolist() for a in engine.run(inputs, outputs=["difference", "sum"])] == [
        [[2] * 3],
        [[8] * 3],
    ]
    assert len(engine.run(inputs, outputs=["sum"])) == 1
    assert [tensor.name for tensor in engine.inputs] == ["a", "b"]


def test_batches_of_any_size_may_run_at_once_and_keep_their_answers(load, models):
    engine = load(models.dense(8, 4))

    def run(rows: int) -> np.ndarray:
        x = np.full((rows, 8), rows, np.float32)
        x.flags.writeable = False  # as what the batcher packs from bytes
        [answer] = engine.run({"x": x}, outputs=["y"])
        return answer

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(run, [1, 5, 2, 7] * 20))

    for rows, answer in zip([1, 5, 2, 7] * 20, answers, strict=True):
        assert answer.tolist() == [[8 * rows] * 4] * rows


@pytest.mark.parametrize("datatype", ["INT64", "FP64", "FP16", "BF16", "BYTES"])
def test_what_openvino_would_keep_in_other_types_is_refused(load, models, datatype):
    with pytest.raises(Unsupported, match=f"'x' is {datatype}"):
        load(models.identity(datatype))


@pytest.mark.parametrize("datatype", ["FP32", "INT32", "UINT8", "BOOL"])
def test_other_datatypes_pass_through(load, models, datatype):
    engine = load(models.identity(datatype))
    x = np.ones((3, 2), {"FP32": "f4", "INT32": "i4", "UINT8": "u1", "BOOL": "?"}[datatype])

    [answer] = engine.run({"x": x}, outputs=["y"])

    assert answer.dtype == x.dtype
    assert answer.tolist() == x.tolist()


def test_a_graph_that_computes_in_other_floats_inside_is_refused(load, models):
    with pytest.raises(Unsupported, match="computes in f64"):
        load(models.there_and_back("FP64"))


def test_a_file_that_openvino_cannot_read_is_refused(tmp_path, models):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.identity())
    like = OnnxEngine(path, settings=EngineSettings(threads=1))
    path.write_bytes(b"garbage")

    with pytest.raises(Unsupported, match=r"OpenVINO cannot load model\.onnx"):
        OpenVinoEngine(path, like=like, threads=1, streams=1)


def test_an_engine_of_another_precision_is_refused(load, models, monkeypatch):
    class Compiled:
        def get_property(self, _name):
            return self

        def get_type_name(self):
            return "bf16"

    real = openvino_engine._openvino()
    monkeypatch.setattr(real.Core, "compile_model", lambda *_: Compiled())

    with pytest.raises(Unsupported, match="would compute in bf16"):
        load(models.identity())


def test_without_its_package_openvino_is_refused_with_that_reason(load, models, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(Unsupported, match="OpenVINO is not installed"):
        load(models.identity())


@pytest.mark.parametrize("streams", [1, 2])
def test_a_stopped_engine_runs_nothing_more(load, models, streams):
    engine = load(models.identity(), streams=streams)
    inputs = {"x": np.ones((1, 2), np.float32)}
    engine.run(inputs, outputs=["y"])

    engine.stop()

    with pytest.raises(RuntimeError, match="stopped"):
        engine.run(inputs, outputs=["y"])


def test_stopping_ends_the_inference_that_runs(load, models):
    engine = load(models.deep(300, 512), streams=1)  # seconds
    inputs = {"x": np.zeros((2_048, 512), np.float32)}
    engine.run({"x": np.zeros((1, 512), np.float32)}, outputs=["y"])
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(engine.run, inputs, outputs=["y"])
        while engine._free:  # until it has taken its request
            pass

        engine.stop()

        assert "cancel" in str(running.exception(timeout=60)).lower()
