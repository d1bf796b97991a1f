"""What goes with the tensors of an ensemble: deadlines, priorities, errors, cancellations."""

import asyncio
import dataclasses
import time

import pytest

from ridgeline.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from serving.execution import EngineFault
from serving.registry import Registry
from serving.request import InferResponse
from serving.statistics import BatchTimes, FailureReason
from tests.serving.ensembles.diamond import Recorder, ask, plan, request

pytestmark = pytest.mark.anyio


async def test_deadline_priority_id_and_parameters_travel_to_the_steps(diamond):
    registry = await diamond()
    recorder = Recorder(registry, "pair")
    now_ns = time.monotonic_ns()
    parameters = {"timeout": 50_000_000, "mine": "x", "sequence_id": 4}

    response = await ask(
        registry, id="7", priority=2, timeout_ns=50_000_000_000, parameters=parameters
    )

    first, second = recorder.requests
    assert first.deadline_ns == second.deadline_ns >= now_ns + 50_000_000_000
    assert (first.priority, first.id, first.parameters) == (2, "7", parameters)
    assert first.timeout_ns == 50_000_000_000
    assert response.parameters["sequence_id"] == 4

    await ask(registry, deadline_ns=now_ns + 10**12, timeout_ns=10**15)
    assert recorder.requests[-1].deadline_ns == now_ns + 10**12


async def test_a_step_that_comes_too_late_tells_so(diamond):
    registry = await diamond()

    with pytest.raises(DeadlineExceeded, match="in ensemble 'e', model 'pair'"):
        await ask(registry, deadline_ns=time.monotonic_ns() - 1)


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
        await ask(registry)

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

    asked = asyncio.create_task(other.find("f").scheduler.infer(request()))
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
    asked = asyncio.create_task(ask(registry))
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
    first = asyncio.create_task(ask(registry))
    await pair.entered.wait()

    with pytest.raises(kind, match=words) as raised:
        await ask(registry)
    assert type(raised.value) is kind

    pair.go_on.set()
    assert (await first).outputs
    assert (await ask(registry)).outputs
    await registry.close(drain_seconds=60)


async def test_a_step_without_a_promised_output_is_a_fault_of_the_model(diamond):
    registry = await diamond()
    pair = Recorder(registry, "pair")

    async def nothing(_request):
        return InferResponse("pair", "1", {}, times=BatchTimes(1, 2, 3))

    pair.infer = nothing
    with pytest.raises(EngineFault, match="model 'pair': it gave no output 'difference', 'sum'"):
        await ask(registry)
