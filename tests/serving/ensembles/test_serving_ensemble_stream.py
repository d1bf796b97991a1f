"""Ensembles with a decoupled step give an answer for each of its answers."""

import dataclasses

import numpy as np
import pytest

from ridgeline.errors import RidgelineError
from serving.registry import Registry
from serving.request import InferRequest
from serving.statistics import FailureReason
from tests.serving.ensembles.diamond import A, request

pytestmark = pytest.mark.anyio


async def test_an_ordinary_ensemble_streams_its_one_answer(diamond):
    registry = await diamond()

    answers = [answer async for answer in registry.find("e").scheduler.stream(request())]

    assert [list(answer.outputs) for answer in answers] == [["TWICE_A", "TWICE_B", "SUM"]]
    assert registry.find("e").scheduler.waiting_requests == 0


class Counting:
    """Makes a model a decoupled one, with an answer for each of so many times its first output."""

    def __init__(self, registry: Registry, name: str, *, times: int) -> None:
        served = next(served for served in registry if served.name == name)
        served.ready.loaded.config.model_transaction_policy.decoupled = True
        self._scheduler, self._times = served.ready.scheduler, times
        self.closed = False
        served.ready = dataclasses.replace(served.ready, scheduler=self)

    async def stream(self, request: InferRequest):
        one = await self._scheduler.infer(request)
        try:
            for number in range(self._times):
                outputs = {name: array + number for name, array in one.outputs.items()}
                yield dataclasses.replace(one, outputs=outputs)
            yield dataclasses.replace(one, outputs={})
        finally:
            self.closed = True

    async def close(self, *, drain_seconds: float) -> None:
        await self._scheduler.close(drain_seconds=drain_seconds)


DECOUPLED = """
platform: "ensemble"
max_batch_size: 4
input { name: "A" data_type: TYPE_FP32 dims: 3 }
output { name: "SUM" data_type: TYPE_FP32 dims: 3 }
output { name: "ONCE" data_type: TYPE_FP32 dims: 3 }
ensemble_scheduling {
  step { model_name: "copy" model_version: -1
    input_map { key: "x" value: "A" } output_map { key: "y" value: "each" } }
  step { model_name: "pair" model_version: -1
    input_map { key: "a" value: "each" } input_map { key: "b" value: "ONCE" }
    output_map { key: "sum" value: "SUM" } }
  step { model_name: "same" model_version: -1
    input_map { key: "x" value: "A" } output_map { key: "y" value: "ONCE" } }
}
"""


@pytest.fixture
async def stream(diamond, repository, models, add, registry):
    repository.add("same", models.identity(shape=("batch", 3)), config="max_batch_size: 8")
    add(DECOUPLED, "s")
    await diamond()
    counting = Counting(registry, "copy", times=3)
    scheduler = registry.find("s").scheduler
    scheduler.check()
    return scheduler, counting


async def test_each_answer_of_a_decoupled_step_is_taken_on_to_the_end(stream, registry):
    scheduler, counting = stream

    answers = [answer async for answer in scheduler.stream(InferRequest("s", {"A": A}))]

    assert [answer.outputs["SUM"][0, 0] for answer in answers] == [0, 1, 2]
    for answer in answers:
        np.testing.assert_array_equal(answer.outputs["ONCE"], A)
    assert registry.find("same").statistics.execution_count == 1
    assert registry.find("pair").statistics.execution_count == 3
    assert counting.closed
    assert registry.find("s").loaded.config.model_transaction_policy.decoupled
    assert registry.find("s").statistics.success == 1


async def test_whoever_leaves_a_stream_closes_that_of_the_step(stream, registry):
    scheduler, counting = stream
    answers = scheduler.stream(InferRequest("s", {"A": A}))
    await anext(answers)

    await answers.aclose()

    assert counting.closed
    assert registry.find("s").statistics.failure == {FailureReason.CANCELED: 1}


async def test_outputs_that_the_decoupled_step_does_not_make_come_once(stream):
    scheduler, _ = stream
    request = InferRequest("s", {"A": A}, outputs=("ONCE",))

    answers = [answer async for answer in scheduler.stream(request)]

    assert [list(answer.outputs) for answer in answers] == [["ONCE"]]


async def test_a_decoupled_ensemble_has_no_single_answer(stream, registry):
    scheduler, _ = stream

    with pytest.raises(RidgelineError, match="'s' may give any number of answers"):
        await scheduler.infer(InferRequest("s", {"A": A}))

    Counting(registry, "pair", times=1)
    with pytest.raises(RidgelineError, match="'s' has several decoupled steps: copy, pair"):
        scheduler.check()
