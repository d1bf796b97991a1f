"""The engine: every datatype through ONNX Runtime, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import InvalidInput, Unavailable, Unsupported
from ridgeline.model import FREE, TensorSpec
from serving.engine import EngineSettings, OnnxEngine, resolved_provider

ONE_THREAD = EngineSettings(threads=1)


@pytest.fixture
def load(tmp_path):
    """Loads an engine from the bytes of a model."""

    def load(model: bytes, *, settings: EngineSettings = ONE_THREAD) -> OnnxEngine:
        path = tmp_path / "model.onnx"
        path.write_bytes(model)
        return OnnxEngine(path, settings=settings)

    return load


def _array(datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if datatype == "BYTES":
        return np.full(shape, "a\0é".encode(), dtype=np.object_)
    return np.full(shape, 1, dtype=DATATYPES[datatype].numpy)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2)])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_passes_through(load, models, datatype, shape):
    engine = load(models.identity(datatype))
    assert engine.inputs == (TensorSpec("x", datatype, (FREE, 2)),)
    assert engine.outputs == (TensorSpec("y", datatype, (FREE, 2)),)

    [answer] = engine.run({"x": _array(datatype, shape)}, outputs=["y"])

    assert answer.shape == shape
    if datatype == "BYTES":
        assert set(answer.ravel()) <= {"a\0é"}
    else:
        assert answer.dtype == DATATYPES[datatype].numpy
        assert (answer == 1).all()


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "BYTES"])
def test_a_scalar_stays_a_scalar(load, models, datatype):
    engine = load(models.identity(datatype, shape=()))

    [answer] = engine.run({"x": _array(datatype, ())}, outputs=["y"])

    assert np.shape(answer) == ()


@pytest.mark.parametrize(("datatype", "to"), [("BF16", "FP32"), ("FP32", "BF16")])
def test_bfloat16_stands_beside_other_datatypes(load, models, datatype, to):
    engine = load(models.cast(datatype, to))

    [answer] = engine.run({"x": _array(datatype, (2, 2))}, outputs=["y"])

    assert answer.dtype == DATATYPES[to].numpy
    assert (answer == 1).all()


@pytest.mark.parametrize(("datatype", "to"), [("BF16", "FP32"), ("FP32", "BF16")])
def test_what_needs_no_conversion_passes_beside_what_does(load, models, datatype, to):
    engine = load(models.cast(datatype, to, beside="INT64"))

    inputs = {"x": _array(datatype, (1, 2)), "t": _array("INT64", (1, 2))}
    y, u = engine.run(inputs, outputs=["y", "u"])

    assert (y.dtype, u.dtype) == (DATATYPES[to].numpy, np.int64)
    assert y.tolist() == u.tolist() == [[1, 1]]


def test_bfloat16_and_texts_may_go_in_together(load, models):
    engine = load(models.cast("BF16", "FP32", beside="BYTES"))

    y, u = engine.run(
        {"x": _array("BF16", (1, 2)), "t": _array("BYTES", (1, 2))}, outputs=["y", "u"]
    )

    assert y.tolist() == [[1, 1]]
    assert u.tolist() == [["a\0é", "a\0é"]]


def test_texts_in_and_bfloat16_out_are_refused_at_load(load, models):
    with pytest.raises(Unsupported, match="takes BYTES and gives BF16"):
        load(models.cast("FP32", "BF16", beside="BYTES"))


def test_only_the_outputs_asked_for_are_given_in_their_order(load, models):
    engine = load(models.two_inputs())
    inputs = {"a": np.full((1, 3), 5, np.float32), "b": np.full((1, 3), 3, np.float32)}

    assert [a.tolist() for a in engine.run(inputs, outputs=["difference", "sum"])] == [
        [[2] * 3],
        [[8] * 3],
    ]
    assert len(engine.run(inputs, outputs=["sum"])) == 1


def test_bytes_that_are_no_text_are_refused_naming_the_input(load, models):
    engine = load(models.identity("BYTES"))
    x = np.array([[b"fine", b"\xff"]], dtype=np.object_)

    with pytest.raises(InvalidInput, match=r"BYTES input 'x' is not UTF-8.*0xff"):
        engine.run({"x": x}, outputs=["y"])


def test_a_file_that_is_no_model_says_so(load):
    with pytest.raises(Unavailable, match=r"ONNX Runtime cannot load model\.onnx: "):
        load(b"garbage")


def test_a_datatype_that_the_protocol_cannot_carry_is_refused(load):
    kind = TensorProto.FLOAT8E4M3FN
    x, y = (helper.make_tensor_value_info(name, kind, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)

    with pytest.raises(InvalidInput, match=r"received tensor\(float8e4m3fn\)"):
        load(model.SerializeToString())


def test_an_execution_provider_that_is_not_there_is_named(load, models, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])

    with pytest.raises(Unavailable, match=r"provider 'cuda' was asked for.*CPUExecutionProvider"):
        load(models.identity(), settings=EngineSettings(threads=1, execution_provider="cuda"))


@pytest.mark.parametrize(
    ("name", "available", "resolved"),
    [
        ("auto", ["CPUExecutionProvider"], "cpu"),
        ("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
        ("tensorrt", ["CPUExecutionProvider"], "tensorrt"),  # which then fails, and says why
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cpu"),
    ],
)
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch, name, available, resolved):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)

    assert resolved_provider(name) == resolved


@pytest.mark.parametrize(
    ("narrow_ns", "wide_ns", "pays"),
    [
        (1_900_000, 1, False),  # so short that it is not even tried
        (12_000_000, 10_000_001, False),
        (12_000_000, 10_000_000, True),
    ],
)
def test_a_second_session_of_several_threads_is_kept_where_it_pays(
    load, models, monkeypatch, narrow_ns, wide_ns, pays
):
    engine = load(models.identity())
    inputs = {"x": np.ones((1, 2), np.float32)}
    monkeypatch.setattr(
        engine, "_median_ns", lambda *_, alone=False: wide_ns if alone else narrow_ns
    )
    narrow = engine._session

    assert engine.widen(inputs, threads=2) == pays

    assert (engine._wide is not None) == pays
    assert engine._session is narrow
    for alone in (False, True):
        [answer] = engine.run(inputs, outputs=["y"], alone=alone)
        assert answer.tolist() == [[1, 1]]


@pytest.mark.parametrize("alone", [False, True])
def test_only_a_batch_that_is_alone_takes_the_wide_session(load, models, monkeypatch, alone):
    engine = load(models.identity())
    monkeypatch.setattr(engine, "_median_ns", lambda *_, alone=False: 1 if alone else 10**9)
    inputs = {"x": np.ones((1, 2), np.float32)}
    engine.widen(inputs, threads=2)
    asked = []

    class Wide:
        def run(self, outputs, _inputs, _options):
            asked.append(outputs)
            return [np.zeros(1)]

    engine._wide = Wide()

    engine.run(inputs, outputs=["y"], alone=alone)

    assert asked == ([["y"]] if alone else [])


def test_the_time_of_a_run_is_measured(load, models):
    engine = load(models.identity())

    assert engine._median_ns({"x": np.ones((1, 2), np.float32)}, ["y"]) > 0


def test_a_stopped_engine_ends_the_inference_that_runs(load, models):
    engine = load(models.slow(10**12))  # hours
    inputs = {"x": np.ones((1, 2), np.float32)}
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(engine.run, inputs, outputs=["y"])

        engine.stop()

        assert "terminate flag" in str(running.exception(timeout=60))
