"""Requests that run in parts, in several batches: their rows come together again, in order."""

import asyncio

import numpy as np
import pytest

from serving.execution import EngineFault
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio


def _rows(batch: np.ndarray) -> list[float]:
    return batch[:, 0].tolist()


async def _in_two_parts(engine, make_batcher, ask):
    """Two instances with a batch each: (1 .. 5, 6 .. 8) and (9 .. 11); and the two requests."""
    engine.held = engine.apart = True
    batcher = make_batcher(instances=2)
    first = asyncio.create_task(ask(batcher, *range(1, 6)))
    second = asyncio.create_task(ask(batcher, *range(6, 12)))
    requests = [await first, await second]
    await engine.entered(2)
    assert sorted(_rows(batch) for batch in engine.batches) == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [9, 10, 11],
    ]
    return batcher, *requests


async def test_a_request_that_ran_in_parts_is_answered_once_with_all_its_rows(
    busy, engine, statistics, ask
):
    batcher, first = busy
    whole = await ask(batcher, *range(1, 6))
    parted = await ask(batcher, *range(6, 12), outputs=("z", "y"))

    engine.let_go(3)

    answer = await parted
    assert list(answer) == ["z", "y"]
    assert _rows(answer["z"]) == [-6, -7, -8, -9, -10, -11]
    assert _rows(answer["y"]) == [12, 14, 16, 18, 20, 22]
    assert _rows((await whole)["y"]) == [2, 4, 6, 8, 10]
    await first
    assert (statistics.success, statistics.inference_count) == (3, 12)
    assert statistics.execution_count == 3


async def test_the_rest_of_a_request_may_be_overtaken_by_a_more_urgent_one(
    make_busy, engine, clock, ask
):
    batcher, first = await make_busy(max_batch_size=4)
    parted = await ask(batcher, *range(1, 7))
    engine.let_go()
    await engine.entered()  # its rows 1 .. 4
    begun = await ask(batcher, *range(20, 25), deadline_ns=clock.now_ns + 10**9)
    engine.let_go()
    await engine.entered()  # rows 20 .. 23
    urgent = await ask(batcher, 30, deadline_ns=clock.now_ns + 10**6)
    engine.let_go(2)

    assert [_rows(batch) for batch in engine.batches[1:3]] == [[1, 2, 3, 4], [20, 21, 22, 23]]
    assert _rows((await parted)["y"]) == [2 * n for n in range(1, 7)]
    assert _rows((await begun)["y"]) == [2 * n for n in range(20, 25)]
    assert _rows((await urgent)["y"]) == [60]
    assert _rows(engine.batches[3]) == [30, 24, 5, 6]
    await first


async def test_a_request_larger_than_any_batch_runs_in_as_many_parts_as_it_needs(
    make_batcher, engine, infer
):
    answer = await infer(make_batcher(max_batch_size=3), *range(8))

    assert _rows(answer["y"]) == [2 * n for n in range(8)]
    assert [len(batch) for batch in engine.batches] == [3, 3, 2]


@pytest.mark.parametrize("order", [(1, 9), (9, 1)])
async def test_parts_may_end_in_any_order(engine, make_batcher, ask, order):
    batcher, whole, parted = await _in_two_parts(engine, make_batcher, ask)

    engine.let_go(of=order[0])
    later = await ask(batcher, 12)
    await engine.entered()  # so the first part has been delivered
    assert not parted.done()
    assert whole.done() == (order[0] == 1)
    engine.let_go(of=order[1])
    engine.let_go(of=12)

    assert _rows((await parted)["y"]) == [12, 14, 16, 18, 20, 22]
    assert _rows((await whole)["y"]) == [2, 4, 6, 8, 10]
    await later


async def test_a_request_of_which_one_part_fails_fails_once_and_alone(
    make_batcher, engine, statistics, ask
):
    engine.held = engine.apart = True
    batcher = make_batcher(instances=2)
    pending = [
        asyncio.create_task(ask(batcher, *values))
        for values in ([1] * 5, [6, 7, 8, -9, 10, 11], [12])
    ]
    mate, poisoned, mate_too = [await request for request in pending]
    await engine.entered(2)

    engine.let_go(of=-9)  # the second part, with the second mate
    await engine.entered()
    engine.let_go(of=-9)
    await engine.entered()
    engine.let_go(of=12)
    with pytest.raises(EngineFault, match="a kernel refused its input"):
        await poisoned
    assert not mate.done()
    engine.let_go(of=1)

    assert _rows((await mate)["y"]) == [2] * 5
    assert _rows((await mate_too)["y"]) == [24]
    assert statistics.failure == {FailureReason.BACKEND: 1}
    assert statistics.success == 2
    await batcher.close(drain_seconds=60)


async def test_a_request_whose_first_part_fails_does_not_run_its_second(
    busy, engine, statistics, ask
):
    batcher, first = busy
    mate = await ask(batcher, *[1] * 5)
    poisoned = await ask(batcher, -6, 7, 8, 9, 10, 11)
    late = await ask(batcher, 12)

    engine.let_go(5)

    with pytest.raises(EngineFault, match="a kernel refused its input"):
        await poisoned
    assert _rows((await mate)["y"]) == [2] * 5
    assert _rows((await late)["y"]) == [24]
    await first
    # The next batch starts before the failed one's callers are told; nothing of it is wasted twice.
    assert [len(batch) for batch in engine.batches[1:4]] == [8, 5, 3]
    assert statistics.failure == {FailureReason.BACKEND: 1}
    await batcher.close(drain_seconds=60)


async def test_a_caller_that_leaves_between_its_parts_spares_the_engine_the_rest(
    busy, engine, statistics, ask
):
    batcher, first = busy
    mate = await ask(batcher, *[1] * 5)
    leaver = await ask(batcher, *range(6, 12))
    engine.let_go()
    await engine.entered()  # 5 rows of the mate, 3 of the leaver
    assert batcher.waiting_requests == 1

    leaver.cancel()
    await asyncio.wait([leaver])
    assert batcher.waiting_requests == 0
    engine.let_go()

    assert _rows((await mate)["y"]) == [2] * 5
    await first
    assert [len(batch) for batch in engine.batches] == [1, 8]
    assert statistics.failure == {FailureReason.CANCELED: 1}
    await batcher.close(drain_seconds=60)


async def test_rows_of_a_split_request_are_those_asked_for_where_mates_ask_for_more(
    busy, engine, ask
):
    batcher, first = busy
    mate = await ask(batcher, *[1] * 5, outputs=("y",))
    parted = await ask(batcher, *range(6, 12), outputs=("z",))
    last = await ask(batcher, 12)

    engine.let_go(3)

    assert list(await parted) == ["z"]
    assert _rows((await parted)["z"]) == [-6, -7, -8, -9, -10, -11]
    assert list(await mate) == ["y"]
    assert list(await last) == ["y", "z"]
    assert engine.asked == [("y", "z")] * 3
    await first
