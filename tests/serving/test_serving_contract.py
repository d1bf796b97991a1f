"""Which requests fit a model: inputs that are there, or may be left out."""

import asyncio

import numpy as np
import pytest

from conformance import onnx_models
from ridgeline.errors import InvalidInput, NotFound
from ridgeline.model import ModelSpec, TensorSpec
from serving.contract import check
from serving.registry import Registry
from serving.request import InferRequest

pytestmark = pytest.mark.anyio
ROW = np.ones((1, 2), np.float32)
NEEDED = TensorSpec("a", "FP32", (2,))
SPEC = ModelSpec("m", 8, (NEEDED, TensorSpec("b", "FP32", (2,), optional=True)), (NEEDED,))
ALL_OPTIONAL = ModelSpec("m", 8, (TensorSpec("b", "FP32", (2,), optional=True),), (NEEDED,))
# OUTPUT0 = INPUT0 + INPUT1, which is 100 where it is left out.
CONFIG = """
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ %(dims)s ] },
        { name: "INPUT1" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ %(dims)s ] }
max_batch_size: %(most)d
"""


@pytest.mark.parametrize("names", ["a", "ab", "ba"])
def test_an_optional_input_may_be_left_out(names):
    check(InferRequest("m", dict.fromkeys(names, ROW)), spec=SPEC)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("b", "expected 1 to 2 inputs but got 1 inputs for model 'm'; missing a"),
        ("", "expected 1 to 2 inputs but got 0 inputs for model 'm'; missing a"),
        ("ac", "unexpected inference input 'c' for model 'm'; expected a, b"),
    ],
)
def test_the_others_may_not(names, words):
    with pytest.raises(InvalidInput, match=words):
        check(InferRequest("m", dict.fromkeys(names, ROW)), spec=SPEC)


def test_an_optional_input_has_the_batch_size_of_the_others():
    with pytest.raises(InvalidInput, match="equal batch sizes"):
        check(InferRequest("m", {"a": ROW, "b": np.ones((2, 2), np.float32)}), spec=SPEC)


def test_somebody_has_to_tell_the_batch_size():
    with pytest.raises(InvalidInput, match="needs one of its optional inputs at least"):
        check(InferRequest("m", {}), spec=ALL_OPTIONAL)


@pytest.fixture
def load(repository, settings):
    async def load(model: bytes, **config) -> Registry:
        repository.add("m", model, config=CONFIG % config)
        registry = Registry(settings)
        await registry.load()
        return registry

    return load


async def test_a_graph_takes_its_own_value_for_what_is_left_out(load):
    registry = await load(onnx_models.optional_addend(), dims="-1", most=0)
    infer = registry.find("m").scheduler.infer
    x, ten = np.array([1, 2], np.float32), np.array([10], np.float32)

    given = await infer(InferRequest("m", {"INPUT0": x, "INPUT1": ten}))
    left_out = await infer(InferRequest("m", {"INPUT0": x}))

    assert given.outputs["OUTPUT0"].tolist() == [11, 12]
    assert left_out.outputs["OUTPUT0"].tolist() == [101, 102]
    await registry.close(drain_seconds=10)


async def test_only_requests_with_the_same_inputs_share_a_batch(load):
    registry = await load(onnx_models.optional_addend(batched=True), dims="1", most=8)
    infer = registry.find("m").scheduler.infer
    x, ten = np.ones((1, 1), np.float32), np.full((1, 1), 10, np.float32)
    with_it, without = {"INPUT0": x, "INPUT1": ten}, {"INPUT0": x}

    answers = await asyncio.gather(
        *(infer(InferRequest("m", inputs)) for inputs in [with_it, without] * 8)
    )

    assert [answer.outputs["OUTPUT0"].tolist() for answer in answers] == [[[11]], [[101]]] * 8
    await registry.close(drain_seconds=10)


async def test_a_graphs_own_values_are_no_inputs_where_nobody_says_so(repository, settings):
    repository.add("m", onnx_models.optional_addend())
    registry = Registry(settings)
    await registry.load()

    assert [tensor.name for tensor in registry.find("m").loaded.spec.inputs] == ["INPUT0"]
    await registry.close(drain_seconds=10)


async def test_an_ensemble_has_no_optional_inputs(repository, models, settings):
    repository.add("identity", models.identity(), config="max_batch_size: 8")
    (repository.root / "e" / "1").mkdir(parents=True)
    (repository.root / "e" / "config.pbtxt").write_text(
        'platform: "ensemble" max_batch_size: 8\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] optional: true }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }\n'
        'ensemble_scheduling { step { model_name: "identity" model_version: -1\n'
        'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }\n'
    )
    registry = Registry(settings)
    await registry.load()

    with pytest.raises(NotFound, match="'x' of ensemble 'e' is optional or reshaped"):
        registry.find("e")
    await registry.close(drain_seconds=10)
