"""Requests on their way, and their share of the outputs of a batch."""

import asyncio

import numpy as np
import pytest

from serving.job import BatchOutputs, FutureJob, JobArguments

pytestmark = pytest.mark.anyio
Y = np.arange(6, dtype=np.float32).reshape(3, 2)
Z = np.array([7, 8, 9], dtype=np.int8)


@pytest.fixture
def outputs():
    return BatchOutputs(["y", "z"], [Y, Z], count=3)


async def _job(*, outputs: tuple[str, ...] = ()) -> FutureJob:
    arguments: JobArguments = {
        "inputs": (),
        "rows": 1,
        "size_bytes": 0,
        "outputs": outputs,
        "shape_key": None,
        "deadline_ns": None,
        "timeout_ns": None,
        "priority": 0,
    }
    return FutureJob(arguments, future=asyncio.get_running_loop().create_future())


async def test_a_request_takes_its_rows_of_each_output(outputs):
    job = await _job()

    job.answer(outputs, 1, 3)

    answer = await job.future
    assert {name: array.tolist() for name, array in answer.items()} == {
        "y": [[2, 3], [4, 5]],
        "z": [8, 9],
    }
    assert answer["y"].base is not None  # a view: nothing is copied


async def test_a_request_takes_the_outputs_it_asked_for_in_its_order(outputs):
    job = await _job(outputs=("z", "y"))

    job.answer(outputs, 0, 3)

    assert list(await job.future) == ["z", "y"]
    assert (await job.future)["y"] is Y  # the whole batch is its own


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (2,), ()])
async def test_without_a_batch_axis_an_output_is_given_as_it_is(shape):
    array = np.zeros(shape)
    job = await _job()

    job.answer(BatchOutputs(["y"], [array], count=1), 0, 1)

    assert (await job.future)["y"] is array


async def test_a_failed_request_raises_its_error():
    job = await _job()

    job.fail(KeyError("y"))

    with pytest.raises(KeyError):
        await job.future


async def test_who_has_gone_is_told_nothing(outputs):
    for end in ("answer", "fail"):
        job = await _job()
        job.future.cancel()
        job.answer(outputs, 0, 1) if end == "answer" else job.fail(KeyError())
        assert job.future.cancelled()


def test_outputs_become_bytes_once(outputs):
    assert outputs.raw == [Y.tobytes(), Z.tobytes()]
    assert outputs.raw is outputs.raw
