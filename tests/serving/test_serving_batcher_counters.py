"""What a batcher counts: every request once, every execution once, also of those that fail."""

import asyncio

import numpy as np
import pytest

from ridgeline.errors import DeadlineExceeded, Overloaded
from serving.execution import EngineFault
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio


def _executions(statistics):
    return {rows: size.compute_infer.count for rows, size in statistics.by_batch_size.items()}


async def test_requests_that_share_a_batch_count_once_each_and_their_batch_once(
    make_batcher, infer, statistics
):
    batcher = make_batcher()

    await asyncio.gather(infer(batcher, 1, 2), infer(batcher, 3))

    assert (statistics.success, statistics.inference_count, statistics.execution_count) == (2, 3, 1)
    assert _executions(statistics) == {3: 1}
    assert statistics.failure_ns == 0


async def test_a_failed_batch_and_each_request_run_again_are_executions(
    make_batcher, infer, statistics
):
    batcher = make_batcher()

    answers = await asyncio.gather(
        infer(batcher, 1), infer(batcher, -1), infer(batcher, 3, 4), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [dict, EngineFault, dict]
    assert (statistics.success, statistics.inference_count) == (2, 3)
    assert statistics.execution_count == 4  # together, then three times alone
    assert _executions(statistics) == {4: 1, 1: 2, 2: 1}
    assert statistics.failure == {FailureReason.BACKEND: 1}


async def test_a_request_in_several_batches_counts_once_with_all_its_rows(
    make_batcher, infer, statistics
):
    batcher = make_batcher(max_batch_size=4)

    await infer(batcher, x=np.ones((10, 1), np.float32))

    assert (statistics.success, statistics.inference_count, statistics.execution_count) == (
        1,
        10,
        3,
    )
    assert _executions(statistics) == {4: 2, 2: 1}


async def test_a_part_that_fails_fails_its_request_once(make_batcher, infer, statistics):
    batcher = make_batcher(max_batch_size=4)
    x = np.ones((6, 1), np.float32)
    x[5] = -1

    with pytest.raises(EngineFault):
        await infer(batcher, x=x)

    assert (statistics.success, statistics.inference_count, statistics.execution_count) == (0, 0, 2)
    assert statistics.failure == {FailureReason.BACKEND: 1}


async def test_failures_count_with_the_time_they_were_in_the_server(
    busy, ask, engine, clock, statistics
):
    batcher, first = busy
    cancelled = await ask(batcher, 1)
    late = await ask(batcher, 2, deadline_ns=clock() + 5_000_000_000)
    clock.now_ns += 2_000_000_000

    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert (statistics.failure, statistics.failure_ns) == (
        {FailureReason.CANCELED: 1},
        2_000_000_000,
    )

    clock.now_ns += 4_000_000_000
    engine.let_go(2)
    await first
    with pytest.raises(DeadlineExceeded):
        await late
    assert statistics.failure == {FailureReason.CANCELED: 1, FailureReason.REJECTED: 1}
    assert statistics.failure_ns == 8_000_000_000
    assert (statistics.success, statistics.execution_count) == (1, 1)


async def test_a_request_refused_at_the_door_is_a_failure_and_no_execution(
    make_busy, ask, engine, statistics
):
    batcher, first = await make_busy(max_queue_size=1)
    waiting = await ask(batcher, 1)

    with pytest.raises(Overloaded):
        await (await ask(batcher, 2))

    engine.let_go(2)
    await asyncio.gather(first, waiting)
    assert statistics.failure == {FailureReason.REJECTED: 1}
    assert (statistics.success, statistics.execution_count) == (2, 2)


async def test_a_caller_that_leaves_while_its_batch_runs_is_no_success(
    make_busy, engine, statistics
):
    batcher, first = await make_busy()

    first.cancel()
    engine.let_go()
    await asyncio.gather(first, return_exceptions=True)
    await batcher.close(drain_seconds=60)
    await asyncio.sleep(0)

    assert (statistics.success, statistics.inference_count) == (0, 0)
    assert statistics.failure == {FailureReason.CANCELED: 1}
    assert statistics.by_batch_size[1].compute_infer.count == 1
