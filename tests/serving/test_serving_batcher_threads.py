"""Where batches run: in threads, ahead of a free one, or in the event loop itself."""

import asyncio
import threading

import pytest

from ridgeline.errors import DeadlineExceeded, Overloaded
from serving.execution import EngineFault
from serving.statistics import FailureReason
from serving.workers import EngineBudget

pytestmark = pytest.mark.anyio
S, MS = 1_000_000_000, 1_000_000


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_batch_that_takes_next_to_nothing_runs_in_the_event_loop(
    make_batcher, engine, infer, calibrated
):
    brief = {"at_once_ns": 100, "service_time": calibrated(lambda rows: 99 + rows)}
    batcher = make_batcher(batcher=brief)

    assert (await infer(batcher, 1))["y"].tolist() == [[2]]
    assert engine.threads == {threading.current_thread().name}
    await asyncio.gather(infer(batcher, 1), infer(batcher, 2))  # 101 ns: one too many

    assert engine.threads == {threading.current_thread().name, "engine-fake_0"}


async def test_a_batch_of_unknown_time_never_runs_in_the_event_loop(make_batcher, engine, infer):
    batcher = make_batcher(batcher={"at_once_ns": 10**12})

    await infer(batcher, 1)

    assert engine.threads == {"engine-fake_0"}


async def test_what_fails_in_the_event_loop_fails_alone_too(
    make_batcher, engine, infer, calibrated, statistics
):
    brief = {"at_once_ns": 100, "service_time": calibrated(lambda _: 50)}
    batcher = make_batcher(batcher=brief)

    good, poisoned = await asyncio.gather(
        infer(batcher, 1), infer(batcher, -1), return_exceptions=True
    )

    assert good["y"].tolist() == [[2]]
    assert isinstance(poisoned, EngineFault)
    assert engine.threads == {threading.current_thread().name}
    assert statistics.failure == {FailureReason.BACKEND: 1}
    assert (await infer(batcher, 3))["y"].tolist() == [[6]]


async def test_the_engine_is_told_whether_a_batch_has_the_machine_for_itself(
    make_batcher, engine, ask
):
    engine.held = True
    batcher = make_batcher(instances=2, max_batch_size=1)
    requests = [await ask(batcher, 0)]
    await engine.entered()
    requests.append(await ask(batcher, 1))
    await engine.entered()
    engine.let_go(2)
    await asyncio.gather(*requests)

    crowd = [asyncio.create_task(ask(batcher, n)) for n in (2, 3)]
    requests = [await request for request in crowd]
    engine.let_go(2)
    await asyncio.gather(*requests)

    assert sorted(engine.alone[:2]) == [False, True]
    assert engine.alone[2:] == [False, False]


async def test_a_full_batch_waits_ahead_in_the_thread_a_smaller_one_in_the_queue(
    make_busy, engine, ask
):
    batcher, first = await make_busy(batcher={"ahead": 1})
    full = await ask(batcher, *[1] * 8)
    await _turns()
    assert len(batcher._running) == 2  # it will run as soon as the engine is free
    assert batcher.waiting_requests == 1
    small = [await ask(batcher, n) for n in (2, 3)]
    full_too = await ask(batcher, *[4] * 8)
    await _turns()
    assert len(batcher._running) == 2  # one batch ahead is enough
    assert batcher.waiting_requests == 4

    engine.let_go(9)

    await asyncio.gather(first, full, *small, full_too)
    assert [batch[:, 0].tolist() for batch in engine.batches] == [
        [0],
        [1] * 8,
        [2, 3, 4, 4, 4, 4, 4, 4],
        [4, 4],
    ]


async def test_a_batch_that_is_not_full_does_not_go_ahead(make_busy, engine, ask):
    batcher, first = await make_busy(batcher={"ahead": 1})
    early = await ask(batcher, *[1] * 7)
    await _turns()
    assert len(batcher._running) == 1

    late = await ask(batcher, 2)  # now it is
    await _turns()
    assert len(batcher._running) == 2
    engine.let_go(2)

    await asyncio.gather(first, early, late)
    assert [len(batch) for batch in engine.batches] == [1, 8]


@pytest.mark.parametrize(("cores", "goes"), [(1, False), (2, True)])
async def test_half_a_batch_goes_ahead_where_the_loop_has_a_core_for_itself(
    make_busy, engine, ask, cores, goes
):
    batcher, first = await make_busy(batcher={"ahead": 1, "budget": EngineBudget(cores)})
    few = await ask(batcher, *[1] * 3)
    await _turns()
    assert len(batcher._running) == 1

    half = await ask(batcher, 2)
    await _turns()
    assert len(batcher._running) == (2 if goes else 1)
    engine.let_go(2)

    await asyncio.gather(first, few, half)
    assert [len(batch) for batch in engine.batches] == [1, 4]


async def test_batches_ahead_take_no_core_from_others(make_batcher, make_engine, ask):
    budget = EngineBudget(1)
    engines = [make_engine(held=True) for _ in range(2)]
    batchers = [
        make_batcher(of=engine, batcher={"budget": budget, "ahead": 1}) for engine in engines
    ]
    requests = []
    for batcher, engine in zip(batchers, engines, strict=True):
        requests += [await ask(batcher, *[1] * 8) for _ in range(3)]
        await engine.entered()

    for engine in engines:
        engine.let_go(3)
    await asyncio.gather(*requests)
    for batcher in batchers:
        await batcher.close(drain_seconds=60)

    assert budget._running == 0
    assert [len(engine.batches) for engine in engines] == [3, 3]


async def test_a_full_batch_goes_ahead_only_if_an_instance_is_soon_free(
    make_busy, engine, clock, ask, calibrated
):
    steady = {"service_time": calibrated(lambda _: S), "ahead": 1}
    batcher, first = await make_busy(batcher=steady)
    full = await ask(batcher, *[1] * 8)
    await _turns()
    assert len(batcher._running) == 1

    clock.now_ns += S - MS
    urgent = await ask(batcher, 2, deadline_ns=clock.now_ns + 5 * S)
    await _turns()
    assert len(batcher._running) == 2

    engine.let_go(3)
    await asyncio.gather(first, full, urgent)
    assert [batch[0, 0] for batch in engine.batches] == [0, 2, 1]


class Dozes:
    """How often a batcher let the event loop doze."""

    def __init__(self, batcher, monkeypatch) -> None:
        self.count = 0
        monkeypatch.setattr(batcher._completions, "doze", self._count)

    def _count(self) -> None:
        self.count += 1


@pytest.mark.parametrize("after_ms", [1, 10], ids=["in time", "late"])
async def test_the_loop_dozes_while_a_batch_runs_where_the_next_one_is_full(
    make_busy, engine, clock, ask, calibrated, monkeypatch, after_ms
):
    batcher, first = await make_busy(batcher={"service_time": calibrated(lambda _: 4 * MS)})
    dozes = Dozes(batcher, monkeypatch)
    requests = [await ask(batcher, 1) for _ in range(7)]
    assert dozes.count == 0  # the next batch would be larger

    clock.now_ns += after_ms * MS
    requests.append(await ask(batcher, 1))

    assert dozes.count == 1
    engine.let_go(2)
    await asyncio.gather(first, *requests)


async def test_the_loop_dozes_a_little_where_the_engine_is_busy_for_long(
    make_busy, engine, ask, calibrated, monkeypatch
):
    batcher, first = await make_busy(batcher={"service_time": calibrated(lambda _: S)})
    dozes = Dozes(batcher, monkeypatch)
    waiting = await ask(batcher, 1)

    assert dozes.count == 1
    engine.let_go(2)
    await asyncio.gather(first, waiting)


async def test_the_loop_dozes_after_refusals(
    make_busy, engine, clock, ask, calibrated, monkeypatch
):
    batcher, first = await make_busy(batcher={"service_time": calibrated(lambda _: S)})
    dozes = Dozes(batcher, monkeypatch)
    batcher.remember_refusal("kind", b"no", retry_after_ns=S)

    with pytest.raises(Overloaded):
        await (await ask(batcher, 1, deadline_ns=clock.now_ns + 3 * S // 2))
    batcher.refusal_of("kind")

    assert dozes.count == 2
    engine.let_go()
    await first


async def test_the_loop_stays_awake_while_an_instance_is_free(
    make_batcher, ask, calibrated, monkeypatch
):
    batcher = make_batcher(batcher={"service_time": calibrated(lambda _: S)})
    dozes = Dozes(batcher, monkeypatch)

    await (await ask(batcher, 1))

    assert dozes.count == 0


async def test_what_is_ahead_is_answered_while_stopping(make_busy, engine, ask):
    batcher, first = await make_busy(batcher={"ahead": 1})
    full = await ask(batcher, *[1] * 8)
    await _turns()
    closing = asyncio.create_task(batcher.close(drain_seconds=60))

    engine.let_go(2)
    await closing

    assert (await first)["y"].tolist() == [[0]]
    assert (await full)["y"].tolist() == [[2]] * 8


@pytest.mark.parametrize(("at_a_time", "in_the_loop"), [(1, True), (2, False)])
async def test_requests_that_come_one_at_a_time_may_keep_the_event_loop_longer(
    make_batcher, engine, infer, calibrated, at_a_time, in_the_loop
):
    # Five seconds are too long for the loop, but not for one that has nobody else to serve.
    times = {"service_time": calibrated(lambda _: 5 * S), "at_once_ns": S}
    batcher = make_batcher(batcher=times)
    for number in range(7):
        await asyncio.gather(*(infer(batcher, number) for _ in range(at_a_time)))
    assert engine.threads == {"engine-fake_0"}

    await infer(batcher, 8)

    assert (threading.current_thread().name in engine.threads) == in_the_loop


async def test_free_shapes_never_run_in_the_event_loop(make_batcher, engine, infer):
    batcher = make_batcher(shape=(-1,), batcher={"at_once_ns": 10**15})

    for number in range(3):
        await infer(batcher, number)

    assert engine.threads == {"engine-fake_0"}


async def test_who_leaves_a_batch_that_waits_ahead_is_spared_the_engine(
    make_busy, engine, ask, statistics
):
    batcher, first = await make_busy(batcher={"ahead": 1})
    leaver, stayer = await ask(batcher, *[1] * 4), await ask(batcher, *[2] * 4)
    await _turns()

    leaver.cancel()
    await asyncio.wait([leaver])
    engine.let_go(2)

    assert (await stayer)["y"].tolist() == [[4]] * 4
    await first
    assert [len(batch) for batch in engine.batches] == [1, 4]
    assert statistics.failure == {FailureReason.CANCELED: 1}


async def test_a_batch_ahead_that_all_have_left_never_runs(make_busy, engine, ask):
    batcher, first = await make_busy(batcher={"ahead": 1})
    leaver = await ask(batcher, *[1] * 8)
    await _turns()
    leaver.cancel()
    await asyncio.wait([leaver])

    engine.let_go(2)
    await first
    await batcher.close(drain_seconds=60)

    assert [len(batch) for batch in engine.batches] == [1]


async def test_who_is_late_in_a_batch_that_waits_ahead_is_told_at_once(
    make_busy, engine, clock, ask
):
    batcher, first = await make_busy(batcher={"ahead": 1})
    late = await ask(batcher, *[1] * 4, deadline_ns=clock.now_ns + 10)
    patient = await ask(batcher, *[2] * 4)
    await _turns()
    assert len(batcher._running) == 2

    clock.now_ns += 10

    with pytest.raises(DeadlineExceeded):
        await late  # the engine still has its first batch
    engine.let_go(2)
    assert (await patient)["y"].tolist() == [[4]] * 4
    await first
    assert [len(batch) for batch in engine.batches] == [1, 4]
