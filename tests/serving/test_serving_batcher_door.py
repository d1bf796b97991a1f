"""Who is let in: what can be answered in time and makes no other request late; in figures.

The engine takes 100 ms for any batch of up to 8 rows, unless said otherwise.
"""

import asyncio

import numpy as np
import pytest

from ridgeline.errors import DeadlineExceeded, Overloaded, Unavailable
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio
MS = 1_000_000
S = 1_000 * MS


def _rows(batch: np.ndarray) -> list[float]:
    return batch[:, 0].tolist()


@pytest.fixture
def steady(calibrated):
    """For `make_batcher`: a known engine."""
    return {"service_time": calibrated(lambda _: 100 * MS)}


@pytest.fixture
def at(clock, ask):
    """Asks with a deadline in so many milliseconds."""

    async def at(batcher, milliseconds, *values, **what):
        return await ask(batcher, *values, deadline_ns=clock.now_ns + milliseconds * MS, **what)

    return at


async def test_a_request_that_would_be_late_is_refused_at_once_with_a_hint(
    make_busy, engine, statistics, steady, at
):
    batcher, first = await make_busy(batcher=steady)

    late = await at(batcher, 150, 1)  # 100 ms until the engine is free, 100 for itself

    error = late.exception()
    assert type(error) is Overloaded
    assert "model 'fake' has too much to do" in str(error)
    # 200 ms with 5 % of caution are 210; of the 150 ms, 5 are for the way: 65 too many, about 100.
    assert error.retry_after_ns == 100 * MS
    assert "send it again in 100 ms" in str(error)
    assert statistics.failure == {FailureReason.REJECTED: 1}
    engine.let_go()
    await first


async def test_a_request_that_fits_is_let_in(make_busy, engine, clock, steady, at):
    batcher, first = await make_busy(batcher=steady)
    fits = await at(batcher, 220, 1)

    for _ in range(2):
        clock.now_ns += 100 * MS
        engine.let_go()
        await asyncio.wait([first, fits], return_when=asyncio.FIRST_COMPLETED)

    assert _rows((await fits)["y"]) == [2]


async def test_the_running_batch_counts_only_with_what_is_left_of_it(
    make_busy, engine, clock, steady, at
):
    batcher, first = await make_busy(batcher=steady)
    assert isinstance((await at(batcher, 150, 1)).exception(), Overloaded)

    clock.now_ns += 90 * MS
    fits = await at(batcher, 150, 1)

    assert not fits.done()
    engine.let_go(2)
    await asyncio.gather(first, fits)


async def test_what_waits_counts_by_batches_not_by_requests(make_busy, engine, steady, at):
    batcher, first = await make_busy(batcher=steady)

    waiting = [await at(batcher, 250, n) for n in range(8)]  # all in one batch
    ninth = await at(batcher, 250, 8)

    assert not any(request.done() for request in waiting)
    assert isinstance(ninth.exception(), Overloaded)
    engine.let_go(2)
    await asyncio.gather(first, *waiting)


async def test_several_instances_share_what_waits(make_batcher, engine, steady, at, ask):
    engine.held = True
    batcher = make_batcher(instances=2, batcher=steady)
    running = [await ask(batcher, *[0] * 8) for _ in range(2)]
    await engine.entered(2)

    # 100 ms, then 24 rows in three batches on two engines: 150 more; one engine would need 400.
    waiting = [await at(batcher, 300, *[n] * 8) for n in (1, 2, 3)]

    assert not any(request.done() for request in waiting)
    assert isinstance((await at(batcher, 300, *[4] * 8)).exception(), Overloaded)
    engine.let_go(5)
    await asyncio.gather(*running, *waiting)


async def test_a_request_that_would_make_an_earlier_one_late_is_refused(
    make_busy, engine, steady, at
):
    batcher, first = await make_busy(batcher=steady)
    admitted = await at(batcher, 250, *[1] * 8)

    # Each could be answered in time itself, before that one: which would then need 300 ms.
    for _ in range(3):
        pushing = await at(batcher, 230, *[2] * 8)
        assert isinstance(pushing.exception(), Overloaded)

    engine.let_go(2)
    await asyncio.gather(first, admitted)
    assert [_rows(batch) for batch in engine.batches] == [[0], [1] * 8]


async def test_a_request_may_go_before_an_earlier_one_that_has_time(make_busy, engine, steady, at):
    batcher, first = await make_busy(batcher=steady)
    admitted = await at(batcher, 400, *[1] * 8)

    before = await at(batcher, 230, *[2] * 8)

    engine.let_go(3)
    await asyncio.gather(first, admitted, before)
    assert [_rows(batch) for batch in engine.batches] == [[0], [2] * 8, [1] * 8]


async def test_a_request_of_another_shape_counts_with_its_own_time(
    make_batcher, engine, at, ask, calibrated
):
    engine.held = True
    batcher = make_batcher(shape=(-1,))
    heavy, light = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32)
    for x, time_ns in ((heavy, S), (light, 100 * MS)):
        times = calibrated(lambda _, time_ns=time_ns: time_ns)
        batcher.admission._times[(x.shape[1:],)] = times
    running = await ask(batcher, x=light)
    await engine.entered()
    admitted = await at(batcher, 1_200, x=heavy)  # 1.1 s with 5 % of caution

    # It would be answered in 200 ms, but the heavy one then only in 1.2 s.
    pushing = await at(batcher, 1_000, x=light)

    assert isinstance(pushing.exception(), Overloaded)
    engine.let_go(2)
    await asyncio.gather(running, admitted)


async def test_what_not_even_an_idle_engine_could_do_is_too_late_already(
    make_batcher, engine, statistics, steady, at
):
    batcher = make_batcher(batcher=steady)

    hopeless = await at(batcher, 50, 1)

    error = hopeless.exception()
    assert type(error) is DeadlineExceeded
    assert "model 'fake' takes about 100 ms for this request alone" in str(error)
    assert statistics.failure == {FailureReason.REJECTED: 1}
    assert engine.batches == []


async def test_after_a_while_a_hopeless_request_is_tried_all_the_same(
    make_batcher, clock, steady, at
):
    batcher = make_batcher(batcher=steady)
    clock.now_ns += 10 * S  # the engine has had nothing to do: it may have become faster

    assert _rows((await (await at(batcher, 50, 1)))["y"]) == [2]
    assert isinstance((await at(batcher, 5, 1)).exception(), DeadlineExceeded)


async def test_an_engine_that_is_found_to_be_faster_lets_more_in(
    make_batcher, engine, steady, at, infer
):
    batcher = make_batcher(batcher=steady)
    assert isinstance((await at(batcher, 50, 1)).exception(), DeadlineExceeded)

    for _ in range(20):
        await infer(batcher, 1)  # in no time

    await (await at(batcher, 50, 1))
    assert len(engine.batches) == 21


async def test_a_request_without_a_deadline_is_let_in_as_far_as_patience_goes(
    make_busy, engine, steady, ask
):
    batcher, first = await make_busy(patience_ns=350 * MS, batcher=steady)
    waiting = [await ask(batcher, *[n] * 8) for n in (1, 2)]  # 300 ms

    assert isinstance((await ask(batcher, 3)).exception(), Overloaded)
    engine.let_go(3)
    await asyncio.gather(first, *waiting)


async def test_a_model_slower_than_all_patience_still_answers_who_gave_no_deadline(
    make_busy, engine, ask, calibrated
):
    slow = {"service_time": calibrated(lambda _: 20 * S)}
    batcher, first = await make_busy(patience_ns=10 * S, batcher=slow)  # let in: it was idle

    refused = await ask(batcher, 1)

    assert type(refused.exception()) is Overloaded  # it has exceeded no deadline
    engine.let_go()
    assert _rows((await first)["y"]) == [0]


async def test_lateness_makes_cautious(make_busy, engine, clock, steady, at):
    batcher, first = await make_busy(batcher=steady)
    before = batcher.admission.caution
    late = await at(batcher, 300, 1)
    clock.now_ns += 300 * MS
    with pytest.raises(DeadlineExceeded):
        await late

    assert batcher.admission.caution > before
    engine.let_go()
    await first


async def test_a_latency_budget_is_a_deadline_for_everybody(
    make_busy, engine, clock, steady, ask, at
):
    batcher, first = await make_busy(budget_ns=250 * MS, batcher=steady)
    waiting = [await ask(batcher, *[1] * 4), await at(batcher, 900, *[2] * 4)]

    assert isinstance((await at(batcher, 900, 3)).exception(), Overloaded)

    clock.now_ns += 250 * MS
    for request in waiting:
        with pytest.raises(DeadlineExceeded):
            await request
    engine.let_go()
    await first


@pytest.mark.parametrize(
    ("queue", "wish_ns", "expires_ns"),
    [
        ({}, 30, 30),
        ({"timeout_ns": 50}, None, 50),
        ({"timeout_ns": 50}, 30, 30),
        ({"timeout_ns": 50}, 90, 50),  # a wish shortens, it does not prolong
        ({"timeout_ns": 50}, 0, 50),
        ({"timeout_ns": 50, "overridable": False}, 30, 50),
    ],
)
async def test_the_timeout_parameter_shortens_the_queues_where_that_is_allowed(
    make_busy, engine, clock, ask, queue, wish_ns, expires_ns
):
    batcher, first = await make_busy(queue=queue)
    waiting = await ask(batcher, 1, timeout_ns=wish_ns)

    clock.now_ns += expires_ns - 1
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    clock.now_ns += 1

    with pytest.raises(DeadlineExceeded):
        await waiting
    engine.let_go()
    await first


async def test_a_wish_that_may_not_be_had_is_ignored_where_there_is_no_timeout(
    make_busy, engine, clock, ask
):
    batcher, first = await make_busy(queue={"overridable": False})
    waiting = await ask(batcher, 1, timeout_ns=30)

    clock.now_ns += 1_000
    engine.let_go(2)

    assert _rows((await waiting)["y"]) == [2]
    await first


async def test_the_bytes_that_wait_have_a_bound(make_busy, engine, statistics, ask):
    batcher, first = await make_busy(max_queue_bytes=100)  # 25 numbers
    waiting = [await ask(batcher, *[1] * 20)]  # 80 bytes

    error = (await ask(batcher, *[2] * 6)).exception()
    assert isinstance(error, Overloaded)
    assert "the waiting requests hold 80 bytes, at most 100 may wait" in str(error)
    waiting.append(await ask(batcher, *[3] * 5))

    engine.let_go(9)
    await asyncio.gather(first, *waiting)
    assert statistics.failure == {FailureReason.REJECTED: 1}


async def test_a_single_request_may_be_larger_than_the_bound(make_busy, engine, ask):
    batcher, first = await make_busy(max_queue_bytes=3)

    waiting = await ask(batcher, 1)

    assert isinstance((await ask(batcher, 2)).exception(), Overloaded)
    engine.let_go(2)
    await asyncio.gather(first, waiting)


async def test_a_full_queue_hints_at_the_next_batch(make_busy, engine, steady, ask):
    batcher, first = await make_busy(max_queue_size=1, batcher=steady)
    waiting = await ask(batcher, 1)

    assert (await ask(batcher, 2)).exception().retry_after_ns == 100 * MS
    engine.let_go(2)
    await asyncio.gather(first, waiting)


async def test_a_refusal_is_unavailable_where_that_is_asked_for(make_busy, engine, steady, ask, at):
    batcher, first = await make_busy(max_queue_size=1, batcher={**steady, "refusal": Unavailable})
    late = await at(batcher, 150, 1)
    waiting = await ask(batcher, 1)
    full = await ask(batcher, 2)

    for refused in (late, full):
        assert type(refused.exception()) is Unavailable
        assert refused.exception().retry_after_ns == 100 * MS
    engine.let_go(2)
    await asyncio.gather(first, waiting)


async def test_a_refusal_is_remembered_until_its_hint_is_over(make_busy, engine, clock, statistics):
    batcher, first = await make_busy()
    assert batcher.refusal_of("kind") is None

    batcher.remember_refusal("kind", b"no", retry_after_ns=50)

    assert batcher.refusal_of("kind") == b"no"
    assert batcher.refusal_of("another kind") is None
    clock.now_ns += 50
    assert batcher.refusal_of("kind") is None
    assert statistics.failure == {FailureReason.REJECTED: 1}
    engine.let_go()
    await first


@pytest.mark.parametrize("event", ["a batch ends", "a caller leaves", "a request is late"])
async def test_a_refusal_is_forgotten_when_the_queue_moves(make_busy, engine, clock, ask, event):
    batcher, first = await make_busy()
    waiting = await ask(batcher, 1, deadline_ns=clock.now_ns + 10)
    batcher.remember_refusal("kind", b"no", retry_after_ns=S)

    if event == "a batch ends":
        engine.let_go()
        await first
    elif event == "a caller leaves":
        waiting.cancel()
        await asyncio.wait([waiting])
    else:
        clock.now_ns += 10
        with pytest.raises(DeadlineExceeded):
            await waiting

    assert batcher.refusal_of("kind") is None
    engine.let_go(2)
    await asyncio.wait([first, waiting])
