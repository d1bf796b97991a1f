"""Threads that run batches, and how the models of a process share the cores."""

import asyncio
import threading

import pytest

from serving.workers import EngineBudget, Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def workers():
    made = []

    def make(count: int) -> Workers:
        made.append(Workers(count, name="engine-m"))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def _run(workers: Workers, call) -> None:
    done = asyncio.Event()
    workers.run(call, done=done.set)
    await done.wait()


async def test_a_call_runs_in_a_thread_and_its_end_is_told_in_the_event_loop(workers):
    seen = []
    ended = asyncio.Event()

    def done() -> None:
        seen.append(threading.current_thread())
        ended.set()

    workers(1).run(lambda: seen.append(threading.current_thread()), done=done)
    await ended.wait()

    assert seen[0].name == "engine-m_0"
    assert seen[1] is threading.current_thread()


async def test_calls_run_in_their_order_and_as_many_at_once_as_there_are_threads(workers):
    both, order = threading.Barrier(2, timeout=60), []
    two = workers(2)

    await asyncio.gather(_run(two, both.wait), _run(two, both.wait))  # neither could alone

    one = workers(1)
    await asyncio.gather(*(_run(one, lambda n=n: order.append(n)) for n in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_closing_waits_for_the_calls_that_were_accepted():
    workers, ended = Workers(1, name="engine-closing"), []
    gate, told = threading.Event(), asyncio.Event()
    workers.run(lambda: ended.append(gate.wait(timeout=60)), done=lambda: None)
    workers.run(lambda: ended.append(True), done=told.set)
    closing = asyncio.create_task(asyncio.to_thread(workers.close))

    gate.set()
    await closing
    await told.wait()

    assert ended == [True, True]
    assert not any(thread.name.startswith("engine-closing") for thread in threading.enumerate())


class Model:
    """Takes cores from a budget as a batcher does, for as much as it `wants`."""

    def __init__(self, budget: EngineBudget, *, wants: int) -> None:
        self.budget, self.wants, self.running = budget, wants, 0
        self.begin()

    def begin(self) -> None:
        while self.wants and self.budget.begin(own=self.running, retry=self.begin):
            self.wants -= 1
            self.running += 1

    def end(self) -> None:
        self.running -= 1
        self.budget.end()
        self.begin()


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_model_that_is_alone_takes_every_core():
    heavy = Model(EngineBudget(3), wants=9)

    assert heavy.running == 3
    heavy.end()
    await _turns()
    assert heavy.running == 3


async def test_a_light_model_may_always_run_one():
    budget = EngineBudget(2)
    heavy, light = Model(budget, wants=9), Model(budget, wants=2)

    assert (heavy.running, light.running) == (2, 1)
    light.end()
    await _turns()
    assert (heavy.running, light.running) == (2, 1)
    light.end()
    heavy.end()
    await _turns()
    assert (heavy.running, light.running) == (2, 0)


async def test_models_that_want_all_share_alike():
    budget = EngineBudget(4)
    models = [Model(budget, wants=99) for _ in range(2)]

    for turn in range(10):
        models[turn % 2].end()
        await _turns()

    assert sorted(model.running for model in models) in ([2, 2], [1, 3])
    before = [model.running for model in models]
    models[0].end()
    await _turns()
    assert [model.running for model in models] == [before[0] - 1, before[1] + 1]


async def test_the_odd_core_goes_round():
    budget = EngineBudget(3)
    models = [Model(budget, wants=999) for _ in range(2)]
    shares = [0, 0]

    for turn in range(40):
        models[turn % 2].end()
        await _turns()
        for number, model in enumerate(models):
            shares[number] += model.running

    assert sum(shares) == 40 * 3
    assert abs(shares[0] - shares[1]) <= 4


async def test_a_core_that_the_next_does_not_want_any_more_goes_to_the_one_behind():
    budget = EngineBudget(3)
    busy, fickle, waiting = (Model(budget, wants=wants) for wants in (2, 2, 2))
    assert [model.running for model in (busy, fickle, waiting)] == [2, 1, 1]
    fickle.wants = 0  # its callers have gone

    busy.end()
    busy.end()
    await _turns()

    assert [model.running for model in (busy, fickle, waiting)] == [0, 1, 2]
