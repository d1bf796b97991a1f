"""ONNX Runtime as engine: every datatype, what it refuses, optimised graphs from the disk."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import InvalidInput, Unavailable, Unsupported
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.engine import EngineSettings
from serving.graph_cache import GraphCache
from serving.onnx_engine import OnnxEngine, resolved_provider

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


def test_a_stopped_engine_ends_the_inference_that_runs(load, models):
    engine = load(models.slow(10**12))  # hours
    inputs = {"x": np.ones((1, 2), np.float32)}
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(engine.run, inputs, outputs=["y"])

        engine.stop()

        assert "terminate flag" in str(running.exception(timeout=60))


@pytest.mark.parametrize("spins", [False, True])
def test_threads_sleep_between_inferences(load, models, spins):
    """Ten sleeps of 20 ms: a thread that stayed awake would use all of one, or of the machine."""
    engine = load(models.dense(256, 256), settings=EngineSettings(threads=2, spins=spins))
    inputs = {"x": np.ones((64, 256), np.float32)}
    used_ns = []
    for _ in range(10):
        engine.run(inputs, outputs=["y"])
        begin_ns = time.process_time_ns()
        threading.Event().wait(0.02)
        used_ns.append(time.process_time_ns() - begin_ns)

    assert sorted(used_ns)[5] < 10_000_000


def test_an_engine_from_the_cache_answers_as_the_one_that_filled_it(tmp_path, models):
    path = tmp_path / "repository" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(models.dense(64, 64, weight=0.5))
    cache = GraphCache(tmp_path / "cache", max_bytes=10**9)
    inputs = {"x": np.ones((3, 64), np.float32)}
    plain = OnnxEngine(path, settings=ONE_THREAD)

    for _ in range(2):
        graph = cache.graph_of(path, digests={})
        engine = OnnxEngine(path, settings=ONE_THREAD, cache=graph)

        assert graph.find() == graph.directory / "model.onnx"
        assert (graph.directory / "weights.bin").stat().st_size >= 64 * 64 * 4
        assert (engine.inputs, engine.outputs) == (plain.inputs, plain.outputs)
        [answer] = engine.run(inputs, outputs=["y"])
        assert (answer == 32).all()


def test_a_cached_graph_that_cannot_be_loaded_is_dropped(tmp_path, models, caplog):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.identity())
    graph = GraphCache(tmp_path / "cache", max_bytes=10**9).graph_of(path, digests={})
    graph.write(lambda to: to.write_bytes(b"sound, but no graph") and None)

    engine = OnnxEngine(path, settings=ONE_THREAD, cache=graph)

    assert engine.run({"x": np.ones((1, 2), np.float32)}, outputs=["y"])[0].tolist() == [[1, 1]]
    assert "is of no use" in caplog.text
    assert not graph.directory.exists()


def test_a_model_that_cannot_be_loaded_says_so_with_a_cache_too(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"garbage")
    graph = GraphCache(tmp_path / "cache", max_bytes=10**9).graph_of(path, digests={})

    with pytest.raises(Unavailable, match="cannot load"):
        OnnxEngine(path, settings=ONE_THREAD, cache=graph)


# --- memory of its own for batches of one size ----------------------------------------------------


def _spec(engine: OnnxEngine, *, max_batch_size: int = 8) -> ModelSpec:
    """The contract of a model whose first axis is that of the batch, if it has one."""
    first = 1 if max_batch_size else 0
    inputs, outputs = (
        tuple(replace(tensor, shape=tensor.shape[first:]) for tensor in tensors)
        for tensors in (engine.inputs, engine.outputs)
    )
    return ModelSpec("m", max_batch_size, inputs, outputs)


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BF16", "BYTES"}))
def test_bound_memory_takes_bytes_and_gives_arrays_of_every_datatype(load, models, datatype):
    engine = load(models.identity(datatype))
    bound = engine.bound(_spec(engine), 3)

    for value in (1, 0):  # again and again in the same memory
        array = np.full((3, 2), value, dtype=DATATYPES[datatype].numpy)
        bound.places[0][:] = array.tobytes()
        [answer] = bound.run()
        assert answer.dtype == array.dtype
        assert answer.tolist() == array.tolist()


def test_bound_memory_has_the_inputs_in_the_order_of_the_contract(load, models):
    engine = load(models.two_inputs())
    spec = _spec(engine)
    inputs = {
        tensor.name: np.random.default_rng(0).random((2, 3), np.float32) for tensor in spec.inputs
    }
    expected = engine.run(inputs, outputs=[tensor.name for tensor in spec.outputs])
    turned = replace(spec, inputs=spec.inputs[::-1])

    bound = engine.bound(turned, 2)
    for tensor, place in zip(turned.inputs, bound.places, strict=True):
        place[:] = inputs[tensor.name].tobytes()

    assert [answer.tolist() for answer in bound.run()] == [array.tolist() for array in expected]


def test_a_model_without_a_batch_axis_is_bound_as_it_is(load, models):
    engine = load(models.identity(shape=()))
    bound = engine.bound(_spec(engine, max_batch_size=0), 1)

    bound.places[0][:] = np.float32(7).tobytes()

    assert [answer.tolist() for answer in bound.run()] == [7]


@pytest.mark.parametrize("datatype", ["BF16", "BYTES"])
def test_what_has_to_be_converted_gets_no_memory_of_its_own(load, models, datatype):
    engine = load(models.identity(datatype))

    assert engine.bound(_spec(engine), 1) is None


def test_nor_does_what_is_large_or_has_free_axes(load, models):
    engine = load(models.identity())
    free = load(models.identity(shape=("batch", "length")))

    assert engine.bound(_spec(engine), 4096) is not None  # 64 KiB, both tensors together
    assert engine.bound(_spec(engine), 4097) is None
    assert free.bound(_spec(free), 1) is None


def test_nor_does_a_model_that_passes_an_input_on(load):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y, x])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    engine = load(model.SerializeToString())
    one = np.float32([[1, 2]])
    passed = engine.run({"x": one}, outputs=["y", "x"])
    assert [array.tolist() for array in passed] == [[[-1, -2]], [[1, 2]]]

    assert engine.bound(_spec(engine), 1) is None
