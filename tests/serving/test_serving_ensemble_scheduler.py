"""Ensembles at work: tensors go their ways, and errors, deadlines and cancellations with them."""

import asyncio
import dataclasses
import time

import numpy as np
import pytest

from ridgeline.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    RidgelineError,
    Unavailable,
)
from serving.execution import EngineFault
from serving.registry import Registry
from serving.request import InferRequest, InferResponse
from serving.statistics import BatchTimes, FailureReason

pytestmark = pytest.mark.anyio

ENSEMBLE = """
platform: "ensemble"
max_batch_size: %d
input { name: "A" data_type: TYPE_FP32 dims: %s }
input { name: "B" data_type: TYPE_FP32 dims: %s }
output { name: "TWICE_A" data_type: TYPE_FP32 dims: %s }
output { name: "TWICE_B" data_type: TYPE_FP32 dims: %s }
output { name: "SUM" data_type: TYPE_FP32 dims: %s }
ensemble_scheduling {
  step {
    model_name: "copy" model_version: -1
    input_map { key: "x" value: "twice a" } output_map { key: "y" value: "TWICE_A" }
  }
  step {
    model_name: "pair" model_version: -1
    input_map { key: "a" value: "SUM" } input_map { key: "b" value: "difference" }
    output_map { key: "sum" value: "twice a" } output_map { key: "difference" value: "TWICE_B" }
  }
  step {
    model_name: "pair" model_version: -1
    input_map { key: "a" value: "A" } input_map { key: "b" value: "B" }
    output_map { key: "sum" value: "SUM" } output_map { key: "difference" value: "difference" }
  }
}
"""
A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.ones((2, 3), np.float32)


def plan(*, batch: int = 4, dims: str = "3") -> str:
    return ENSEMBLE % (batch, *[dims] * 5)


@pytest.fixture
def add(repository):
    def add(config: str, name: str = "e") -> None:
        (repository.root / name / "1").mkdir(parents=True)
        (repository.root / name / "config.pbtxt").write_text(config)

    return add


@pytest.fixture
async def registry(settings):
    registry = Registry(settings)
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def diamond(repository, models, add, registry):
    """Loads the ensemble above; returns what sends it a request."""
    repository.add("pair", models.two_inputs(), config="max_batch_size: 8")
    repository.add("copy", models.identity(shape=("batch", 3)), config="max_batch_size: 8")

    async def load(**what) -> Registry:
        add(plan(**what))
        await registry.load()
        return registry

    return load


def _request(a=A, b=B, **more) -> InferRequest:
    return InferRequest("e", {"A": a, "B": b}, **more)


async def _ask(registry, *arrays, **more):
    return await registry.find("e").scheduler.infer(_request(*arrays, **more))


async def test_tensors_go_from_step_to_step_whatever_the_order_they_are_written_in(diamond):
    response = await _ask(await diamond(), id="7")

    assert list(response.outputs) == ["TWICE_A", "TWICE_B", "SUM"]
    np.testing.assert_array_equal(response.outputs["TWICE_A"], 2 * A)
    np.testing.assert_array_equal(response.outputs["TWICE_B"], 2 * B)
    np.testing.assert_array_equal(response.outputs["SUM"], A + B)
    assert (response.model_name, response.model_version, response.id) == ("e", "1", "7")
    assert response.parameters == {
        "sequence_id": 0, "sequence_start": False, "sequence_end": False,
    }  # fmt: skip


async def test_only_the_steps_that_an_output_needs_are_run(diamond):
    registry = await diamond()

    response = await _ask(registry, outputs=("SUM",))

    assert list(response.outputs) == ["SUM"]
    assert registry.find("pair").statistics.execution_count == 1
    assert registry.find("copy").statistics.execution_count == 0


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((3,), {"batch": 0}),  # the steps get a batch axis of one row, which goes again
        ((1, 3), {"batch": 0, "dims": "[ 1, 3 ]"}),
        ((5, 3), {"batch": 0, "dims": "[ -1, 3 ]"}),
    ],
)
async def test_an_ensemble_without_a_batch_axis_uses_models_that_have_one(diamond, shape, what):
    registry = await diamond(**what)
    a, b = np.full(shape, 3, np.float32), np.ones(shape, np.float32)

    response = await _ask(registry, a, b)

    assert {array.shape for array in response.outputs.values()} == {shape}
    np.testing.assert_array_equal(response.outputs["TWICE_A"], 2 * a)


async def test_a_model_without_a_batch_axis_takes_batches_of_one(repository, models, add, registry):
    repository.add("copy", models.identity(shape=(3,)))
    repository.add("pair", models.two_inputs(), config="max_batch_size: 8")
    add(plan())
    await registry.load()

    response = await _ask(registry, A[:1], B[:1])
    np.testing.assert_array_equal(response.outputs["TWICE_A"], 2 * A[:1])

    with pytest.raises(InvalidInput, match=r"in ensemble 'e', .*'copy'.* Expected \[3\], got \[2"):
        await _ask(registry)


async def test_what_does_not_fit_the_ensemble_is_refused_before_any_step(diamond):
    registry = await diamond()

    with pytest.raises(InvalidInput, match="batch-size must be between 1 and 4 for 'e', got 5"):
        await _ask(registry, np.ones((5, 3), np.float32), np.ones((5, 3), np.float32))
    with pytest.raises(InvalidInput, match="unexpected inference output 'difference'"):
        await _ask(registry, outputs=("difference",))

    assert registry.find("e").statistics.invalid == 2
    assert registry.find("pair").statistics.execution_count == 0


async def test_the_statistics_count_the_computing_of_all_steps(diamond):
    registry = await diamond()

    await _ask(registry)

    ensemble = registry.find("e").statistics
    steps = [registry.find(name).statistics for name in ("pair", "copy")]
    assert (ensemble.success, ensemble.inference_count, ensemble.execution_count) == (1, 2, 1)
    assert [step.execution_count for step in steps] == [2, 1]
    assert ensemble.compute_infer_ns == sum(step.compute_infer_ns for step in steps)
    assert ensemble.queue_ns == 0
    assert list(ensemble.by_batch_size) == [2]


class Recorder:
    """Stands before the scheduler of a step: remembers requests, and may hold or refuse them."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._served = next(served for served in registry if served.name == name)
        self._scheduler = self._served.ready.scheduler
        self.requests: list[InferRequest] = []
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()
        self.cancelled = False
        self.error: Exception | None = None
        self.go_on.set()
        self._served.ready = dataclasses.replace(self._served.ready, scheduler=self)

    async def infer(self, request: InferRequest) -> InferResponse:
        self.requests.append(request)
        self.entered.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return await self._scheduler.infer(request)

    async def close(self, *, drain_seconds: float) -> None:
        self.go_on.set()
        await self._scheduler.close(drain_seconds=drain_seconds)


async def test_deadline_priority_id_and_parameters_travel_to_the_steps(diamond):
    registry = await diamond()
    recorder = Recorder(registry, "pair")
    now_ns = time.monotonic_ns()
    parameters = {"timeout": 50_000_000, "mine": "x", "sequence_id": 4}

    response = await _ask(
        registry, id="7", priority=2, timeout_ns=50_000_000_000, parameters=parameters
    )

    first, second = recorder.requests
    assert first.deadline_ns == second.deadline_ns >= now_ns + 50_000_000_000
    assert (first.priority, first.id, first.parameters) == (2, "7", parameters)
    assert first.timeout_ns == 50_000_000_000
    assert response.parameters["sequence_id"] == 4

    await _ask(registry, deadline_ns=now_ns + 10**12, timeout_ns=10**15)
    assert recorder.requests[-1].deadline_ns == now_ns + 10**12


async def test_a_step_that_comes_too_late_tells_so(diamond):
    registry = await diamond()

    with pytest.raises(DeadlineExceeded, match="in ensemble 'e', model 'pair'"):
        await _ask(registry, deadline_ns=time.monotonic_ns() - 1)


@pytest.mark.parametrize(
    "error",
    [
        EngineFault("it broke"),
        Overloaded("full", retry_after_ns=5),
        InvalidInput("model 'pair' knows better"),
    ],
)
async def test_the_error_of_a_step_is_told_with_ensemble_and_model(diamond, error):
    registry = await diamond()
    Recorder(registry, "pair").error = error

    with pytest.raises(type(error)) as raised:
        await _ask(registry)

    text = str(raised.value)
    assert text.startswith("in ensemble 'e', ")
    assert text.count("model 'pair'") == 1
    assert text.endswith(str(error))
    assert getattr(raised.value, "retry_after_ns", None) == getattr(error, "retry_after_ns", None)
    assert registry.find("e").statistics.failure == {FailureReason.OTHER: 1}


async def test_steps_that_do_not_depend_on_each_other_run_side_by_side(diamond, repository):
    config = plan().replace('key: "x" value: "twice a"', 'key: "x" value: "A"')
    registry = await diamond()
    (repository.root / "f" / "1").mkdir(parents=True)
    wide = config.replace('output_map { key: "sum" value: "twice a" }', "")
    (repository.root / "f" / "config.pbtxt").write_text(wide)
    other = Registry(dataclasses.replace(registry._settings))
    await other.load()
    copy, pair = Recorder(other, "copy"), Recorder(other, "pair")
    copy.go_on.clear()
    pair.go_on.clear()

    asked = asyncio.create_task(other.find("f").scheduler.infer(_request()))
    await copy.entered.wait()
    await pair.entered.wait()
    pair.error = EngineFault("it broke")
    pair.go_on.set()

    with pytest.raises(EngineFault, match="it broke"):
        await asked
    assert copy.cancelled
    await other.close(drain_seconds=60)


async def test_who_leaves_takes_the_request_back_from_the_step(diamond):
    registry = await diamond()
    pair = Recorder(registry, "pair")
    pair.go_on.clear()
    asked = asyncio.create_task(_ask(registry))
    await pair.entered.wait()

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert pair.cancelled
    assert registry.find("e").statistics.failure == {FailureReason.CANCELED: 1}


@pytest.mark.parametrize(
    ("limits", "status", "kind", "words"),
    [
        ({"max_queue_size": 1}, "precise", Overloaded, "Exceeds maximum queue size of 1"),
        ({"max_queue_size": 1}, "triton", Unavailable, "Exceeds maximum queue size of 1"),
        ({"max_queue_bytes": 50}, "precise", Overloaded, "hold 48 bytes, at most 50 may"),
    ],
)
async def test_requests_in_flight_are_bounded(
    repository, models, add, settings, limits, status, kind, words
):
    repository.add("pair", models.two_inputs(), config="max_batch_size: 8")
    repository.add("copy", models.identity(shape=("batch", 3)), config="max_batch_size: 8")
    add(plan())
    registry = Registry(dataclasses.replace(settings, status_codes=status, **limits))
    await registry.load()
    pair = Recorder(registry, "pair")
    pair.go_on.clear()
    first = asyncio.create_task(_ask(registry))
    await pair.entered.wait()

    with pytest.raises(kind, match=words) as raised:
        await _ask(registry)
    assert type(raised.value) is kind

    pair.go_on.set()
    assert (await first).outputs
    assert (await _ask(registry)).outputs
    await registry.close(drain_seconds=60)


async def test_a_stopping_server_finishes_ensembles_before_their_models(diamond):
    registry = await diamond()
    scheduler, pair = registry.find("e").scheduler, Recorder(registry, "pair")
    pair.go_on.clear()
    asked = asyncio.create_task(_ask(registry))
    await pair.entered.wait()

    closing = asyncio.create_task(registry.close(drain_seconds=60))
    while not scheduler._closing:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="'e' is stopping and takes no new requests"):
        await scheduler.infer(_request())
    pair.go_on.set()

    assert set((await asked).outputs) == {"TWICE_A", "TWICE_B", "SUM"}
    await closing


async def test_what_does_not_end_in_time_fails_with_its_models(diamond):
    registry = await diamond()
    pair = Recorder(registry, "pair")
    pair.go_on.clear()
    asked = asyncio.create_task(_ask(registry))
    await pair.entered.wait()

    await registry.close(drain_seconds=0)

    with pytest.raises(RidgelineError, match="in ensemble 'e'"):
        await asked


async def test_a_model_that_comes_again_is_used_at_once_and_one_that_goes_is_missed(diamond):
    registry = await diamond()
    pair = next(served for served in registry if served.name == "pair")
    before = pair.ready
    pair.ready = dataclasses.replace(before)
    assert (await _ask(registry)).outputs

    pair.ready = None
    with pytest.raises(Unavailable, match=r"'e' depends on 'pair' which has no loaded version"):
        await _ask(registry)

    loaded = dataclasses.replace(before.loaded, spec=registry.find("copy").loaded.spec)
    pair.ready = dataclasses.replace(before, loaded=loaded)
    with pytest.raises(Unavailable, match=r"was loaded that does not fit: .* non-existing input a"):
        await _ask(registry)
    pair.ready = before
    assert (await _ask(registry)).outputs


async def test_ensembles_of_ensembles_are_loaded_in_the_order_they_need(diamond, add, registry):
    outer = """
    platform: "ensemble"
    max_batch_size: 4
    input { name: "A" data_type: TYPE_FP32 dims: 3 }
    output { name: "OUT" data_type: TYPE_FP32 dims: 3 }
    ensemble_scheduling { step {
      model_name: "e" model_version: -1
      input_map { key: "A" value: "A" } input_map { key: "B" value: "A" }
      output_map { key: "SUM" value: "OUT" }
    } }
    """
    add(outer, "a")
    await diamond()

    response = await registry.find("a").scheduler.infer(InferRequest("a", {"A": A}))

    np.testing.assert_array_equal(response.outputs["OUT"], 2 * A)


async def test_ensembles_that_depend_on_each_other_are_unavailable(add, registry):
    for name, other in ("ab", "ba"):
        one = plan().replace('"pair"', f'"{other}"').replace('"copy"', f'"{other}"')
        add(one, name)
    await registry.load()

    for name in "ab":
        with pytest.raises((Unavailable, NotFound), match="which has no loaded version"):
            registry.find(name)


async def test_a_step_without_a_promised_output_is_a_fault_of_the_model(diamond):
    registry = await diamond()
    pair = Recorder(registry, "pair")

    async def nothing(_request):
        return InferResponse("pair", "1", {}, times=BatchTimes(1, 2, 3))

    pair.infer = nothing
    with pytest.raises(EngineFault, match="model 'pair': it gave no output 'difference', 'sum'"):
        await _ask(registry)


async def test_an_ordinary_ensemble_streams_its_one_answer(diamond):
    registry = await diamond()

    answers = [answer async for answer in registry.find("e").scheduler.stream(_request())]

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
