"""Who goes first: deadlines, priorities, preferred sizes, order that is kept; who is too late."""

import asyncio

import numpy as np
import pytest

from ridgeline.errors import DeadlineExceeded
from serving.policy import QueuePolicy
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio
MS = 1_000_000
HOUR_NS = 3_600_000_000_000


def _rows(batch: np.ndarray) -> list[float]:
    return batch[:, 0].tolist()


async def _end(engine, *requests):
    """Let the engine do all it has, and wait for the answers."""
    engine.let_go(len(requests) + 1)
    return await asyncio.gather(*requests)


async def test_the_earliest_deadline_goes_first_and_none_is_as_patient_as_set(
    make_busy, engine, clock, ask
):
    batcher, first = await make_busy(patience_ns=300 * MS)
    due_ms = {1: 400, 2: None, 3: 200, 4: 250}
    requests = [
        await ask(batcher, n, deadline_ns=ms and clock.now_ns + ms * MS) for n, ms in due_ms.items()
    ]

    await _end(engine, first, *requests)

    assert [_rows(batch) for batch in engine.batches] == [[0], [3, 4, 2, 1]]


async def test_a_deadline_beyond_all_clocks_is_none(make_busy, engine, ask):
    batcher, first = await make_busy()
    requests = [await ask(batcher, 1, deadline_ns=10**30), await ask(batcher, 2)]

    await _end(engine, first, *requests)

    assert [_rows(batch) for batch in engine.batches] == [[0], [2, 1]]


async def test_equal_deadlines_keep_the_order_of_arrival(busy, engine, clock, ask):
    batcher, first = busy
    requests = [await ask(batcher, n, deadline_ns=clock.now_ns + HOUR_NS) for n in (3, 1, 2)]

    await _end(engine, first, *requests)

    assert [_rows(batch) for batch in engine.batches] == [[0], [3, 1, 2]]


async def test_a_higher_priority_goes_before_any_deadline(make_busy, engine, clock, ask):
    batcher, first = await make_busy(levels=3, default_level=2)
    soon, later = clock.now_ns + 200 * MS, clock.now_ns + 400 * MS
    requests = [
        await ask(batcher, 1, deadline_ns=soon),  # the default is the second level
        await ask(batcher, 2, priority=9),  # beyond the last level
        await ask(batcher, 3, priority=1, deadline_ns=later),
        await ask(batcher, 4, priority=1, deadline_ns=soon),
        await ask(batcher, 5, priority=2),
    ]

    await _end(engine, first, *requests)

    assert [_rows(batch) for batch in engine.batches] == [[0], [4, 3, 1, 5, 2]]


async def test_an_urgent_shape_goes_before_one_that_came_first(make_batcher, engine, clock, ask):
    engine.held = True
    batcher = make_batcher(shape=(-1,))
    first = await ask(batcher, 0)
    await engine.entered()
    wide = await ask(batcher, x=np.ones((1, 3), np.float32))
    urgent = await ask(batcher, 7, deadline_ns=clock.now_ns + MS)

    await _end(engine, first, wide, urgent)

    assert [batch.shape for batch in engine.batches] == [(1, 1), (1, 1), (1, 3)]


async def test_a_request_that_is_late_while_the_engine_is_busy_is_told_at_once(
    busy, engine, clock, statistics, ask
):
    batcher, first = busy
    late = await ask(batcher, 1, deadline_ns=clock.now_ns + 10)
    patient = await ask(batcher, 2)
    in_time = await ask(batcher, 3, deadline_ns=clock.now_ns + 40)

    clock.now_ns += 10

    with pytest.raises(DeadlineExceeded, match="model 'fake': the deadline passed"):
        await late  # the engine still has its first batch
    assert batcher.waiting_requests == 2
    clock.now_ns += 30
    with pytest.raises(DeadlineExceeded):
        await in_time
    assert not first.done()
    await _end(engine, first, patient)
    assert [_rows(batch) for batch in engine.batches] == [[0], [2]]
    assert statistics.failure == {FailureReason.REJECTED: 2}


async def test_a_late_request_is_told_also_where_a_more_important_one_hides_it(
    make_busy, engine, clock, ask
):
    batcher, first = await make_busy(levels=2, default_level=1)
    important = await ask(batcher, 1, priority=1)
    late = await ask(batcher, 2, priority=2, deadline_ns=clock.now_ns + 10)

    clock.now_ns += 10

    with pytest.raises(DeadlineExceeded):
        await late
    await _end(engine, first, important)
    assert [_rows(batch) for batch in engine.batches] == [[0], [1]]


async def test_who_is_found_late_when_the_batch_is_made_is_left_out(
    make_busy, engine, clock, ask, monkeypatch
):
    batcher, first = await make_busy(levels=2, default_level=1)
    monkeypatch.setattr(batcher._alarm, "set", lambda _: None)  # the timer comes too late
    important = await ask(batcher, 1, priority=1)
    late = await ask(batcher, 2, priority=2, deadline_ns=clock.now_ns + 10)
    last = await ask(batcher, 3, priority=2, deadline_ns=clock.now_ns + 20)

    clock.now_ns += 10
    await _end(engine, first, important, last)

    with pytest.raises(DeadlineExceeded):
        await late
    assert [_rows(batch) for batch in engine.batches] == [[0], [1, 3]]


async def test_a_batch_is_only_as_large_as_its_most_urgent_request_has_time_for(
    make_busy, engine, clock, ask, calibrated
):
    # 30 ms for one row, 60 for four, 100 for eight.
    times = calibrated(lambda rows: (20 + 10 * rows) * MS)
    batcher, first = await make_busy(batcher={"service_time": times})
    urgent = await ask(batcher, 1, deadline_ns=clock.now_ns + (30 + 80) * MS)
    others = [await ask(batcher, n) for n in range(2, 9)]

    clock.now_ns += 30 * MS  # 80 are left: enough for four rows and a quarter more, not for five

    await _end(engine, first, urgent, *others)
    assert [len(batch) for batch in engine.batches] == [1, 4, 4]


async def test_a_request_that_cannot_be_in_time_any_more_does_not_make_batches_small(
    make_busy, engine, clock, ask
):
    batcher, first = await make_busy(patience_ns=100)
    others = [await ask(batcher, n) for n in range(1, 9)]

    clock.now_ns += 1_000  # their patience is over, but nobody has given up

    await _end(engine, first, *others)
    assert [len(batch) for batch in engine.batches] == [1, 8]


async def test_a_preferred_size_starts_at_once_and_the_rest_waits_for_its_delay(
    make_batcher, engine, clock, infer, ask
):
    batcher = make_batcher(preferred_rows=(4,), delay_ns=1_000)
    five = [asyncio.create_task(infer(batcher, n)) for n in range(5)]
    await asyncio.gather(*five[:4])
    assert [_rows(batch) for batch in engine.batches] == [[0, 1, 2, 3]]

    clock.now_ns += 999
    late = await ask(batcher, 5)
    assert batcher.waiting_requests == 2
    clock.now_ns += 1

    await asyncio.gather(five[4], late)
    assert [_rows(batch) for batch in engine.batches[1:]] == [[4, 5]]


async def test_a_preferred_size_takes_the_most_urgent_rows(make_batcher, engine, clock, infer):
    batcher = make_batcher(preferred_rows=(2, 4), delay_ns=HOUR_NS)
    due_ms = {1: 900, 2: 300, 3: 200, 4: 700, 5: 400, 6: 500}

    await asyncio.gather(
        *(infer(batcher, n, deadline_ns=clock.now_ns + ms * MS) for n, ms in due_ms.items())
    )

    assert [_rows(batch) for batch in engine.batches] == [[3, 2, 5, 6], [4, 1]]


async def test_a_preferred_size_is_not_reached_where_that_would_be_too_late(
    make_busy, engine, clock, ask, calibrated
):
    # 30 ms for one row, 60 for four, 100 for eight; 80 are left when the engine is free.
    times = calibrated(lambda rows: (20 + 10 * rows) * MS)
    batcher, first = await make_busy(preferred_rows=(8,), batcher={"service_time": times})
    urgent = await ask(batcher, 1, deadline_ns=clock.now_ns + (30 + 80) * MS)
    others = [await ask(batcher, n) for n in range(2, 9)]

    clock.now_ns += 30 * MS

    await _end(engine, first, urgent, *others)
    assert [len(batch) for batch in engine.batches] == [1, 4, 4]


async def test_a_delay_alone_waits_for_a_full_batch(make_batcher, engine, infer, ask):
    batcher = make_batcher(delay_ns=HOUR_NS, patience_ns=2 * HOUR_NS, max_batch_size=3)
    waiting = [await ask(batcher, n) for n in (1, 2)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert batcher.waiting_requests == 2

    await infer(batcher, 3)

    await asyncio.gather(*waiting)
    assert [_rows(batch) for batch in engine.batches] == [[1, 2, 3]]


async def test_a_delay_ends_in_time_for_the_deadline(make_batcher, engine, clock, ask, calibrated):
    times = calibrated(lambda _: 1_000)
    batcher = make_batcher(delay_ns=HOUR_NS, batcher={"service_time": times})
    urgent = await ask(batcher, 1, deadline_ns=clock.now_ns + 5_000)
    clock.now_ns += 3_900
    beside = await ask(batcher, 2)
    await asyncio.sleep(0)
    assert batcher.waiting_requests == 2

    clock.now_ns += 50  # 1050 are left: a batch, and some caution

    await asyncio.gather(urgent, beside)
    assert [_rows(batch) for batch in engine.batches] == [[1, 2]]


async def test_who_stops_waits_for_no_larger_batch(make_batcher, ask):
    batcher = make_batcher(delay_ns=HOUR_NS, patience_ns=2 * HOUR_NS)
    waiting = await ask(batcher, 1)
    for _ in range(3):
        await asyncio.sleep(0)
    assert batcher.waiting_requests == 1

    await batcher.close(drain_seconds=60)

    assert _rows((await waiting)["y"]) == [2]


async def test_a_request_whose_delay_has_passed_goes_behind_all_others(
    make_busy, engine, clock, ask, statistics
):
    queue = {"timeout_ns": 100, "delays": True}
    batcher, first = await make_busy(queue=queue, max_batch_size=1, patience_ns=HOUR_NS)
    slow = await ask(batcher, 1)
    clock.now_ns += 100
    others = [await ask(batcher, n) for n in (2, 3)]

    await _end(engine, first, slow, *others)

    assert [_rows(batch) for batch in engine.batches] == [[0], [2], [3], [1]]
    assert statistics.failure == {}  # it was late, but not dropped


async def test_a_timeout_that_only_delays_still_says_who_goes_first(make_busy, engine, ask):
    queue = {"timeout_ns": 200 * MS, "delays": True}
    batcher, first = await make_busy(queue=queue)
    usual, urgent = await ask(batcher, 1), await ask(batcher, 2, timeout_ns=100 * MS)

    await _end(engine, first, usual, urgent)

    assert [_rows(batch) for batch in engine.batches] == [[0], [2, 1]]


async def test_delayed_requests_keep_their_order_and_do_run(make_busy, engine, clock, ask):
    queue = {"timeout_ns": 100, "delays": True}
    batcher, first = await make_busy(queue=queue, max_batch_size=1, patience_ns=HOUR_NS)
    slow = [await ask(batcher, n) for n in (1, 2, 3)]

    clock.now_ns += 100

    await _end(engine, first, *slow)
    assert [_rows(batch) for batch in engine.batches] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("preserve", "answered"), [(True, [False, False]), (False, [False, True])])
async def test_answers_keep_the_order_of_the_requests_where_that_is_asked_for(
    make_batcher, engine, ask, preserve, answered
):
    engine.held = engine.apart = True
    batcher = make_batcher(instances=2, max_batch_size=1, preserve_ordering=preserve)
    slow, quick = [await task for task in [asyncio.create_task(ask(batcher, n)) for n in (1, 2)]]
    await engine.entered(2)

    engine.let_go(of=2)
    later = await ask(batcher, 3)
    await engine.entered()  # so the batch of the second has ended

    assert [slow.done(), quick.done()] == answered
    engine.let_go(of=1)
    engine.let_go(of=3)
    ended = await asyncio.gather(slow, quick, later)
    assert [_rows(answer["y"]) for answer in ended] == [[2], [4], [6]]


async def test_where_order_is_kept_deadlines_do_not_change_it(make_busy, engine, clock, ask):
    batcher, first = await make_busy(preserve_ordering=True)
    requests = [
        await ask(batcher, n, deadline_ns=clock.now_ns + ms * MS)
        for n, ms in ((1, 900), (2, 100), (3, 500))
    ]

    await _end(engine, first, *requests)

    assert [_rows(batch) for batch in engine.batches] == [[0], [1, 2, 3]]


async def test_each_priority_level_may_have_its_own_queue(make_busy, engine, ask):
    levels = {1: QueuePolicy(max_requests=2), 2: QueuePolicy(max_requests=1)}
    batcher, first = await make_busy(levels=2, default_level=2, level_queues=levels)
    waiting = [await ask(batcher, 1, priority=1), await ask(batcher, 2, priority=2)]
    refused = await ask(batcher, 3)  # by default, the second level
    waiting.append(await ask(batcher, 4, priority=1))
    refused_too = await ask(batcher, 5, priority=1)

    for request, size in ((refused, 1), (refused_too, 2)):
        assert f"maximum queue size of {size} " in str(request.exception())
    await _end(engine, first, *waiting)
    assert [_rows(batch) for batch in engine.batches] == [[0], [1, 4, 2]]


async def test_a_place_of_a_level_is_free_again_whichever_way_its_request_left(
    make_busy, engine, clock, ask
):
    levels = {2: QueuePolicy(max_requests=1)}
    batcher, first = await make_busy(levels=2, default_level=2, level_queues=levels)
    gone = await ask(batcher, 1)
    gone.cancel()
    await asyncio.wait([gone])
    late = await ask(batcher, 2, deadline_ns=clock.now_ns + 10)
    clock.now_ns += 10
    with pytest.raises(DeadlineExceeded):
        await late
    run = await ask(batcher, 3)

    engine.let_go()
    await first
    await engine.entered()
    last = await ask(batcher, 4)

    engine.let_go(2)
    assert _rows((await run)["y"]) == [6]
    assert _rows((await last)["y"]) == [8]
