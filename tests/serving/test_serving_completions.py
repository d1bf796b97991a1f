"""The ends of batches reach the event loop, awake or dozing."""

import asyncio
import queue
import threading

import pytest

from serving.completions import MOST_DOZE_NS, Completions

pytestmark = pytest.mark.anyio


@pytest.fixture
def completions() -> Completions:
    return Completions()


async def test_a_call_from_a_thread_runs_in_the_loop(completions):
    loop, ran_in = asyncio.get_running_loop(), asyncio.Future()

    def call() -> None:
        ran_in.set_result(threading.current_thread())

    await asyncio.to_thread(completions.post, call, loop=loop)

    assert await ran_in is threading.current_thread()


async def test_calls_run_in_the_order_in_which_they_came(completions):
    loop, ran, all_ran = asyncio.get_running_loop(), [], asyncio.Event()

    for number in range(5):
        completions.post(lambda number=number: ran.append(number), loop=loop)
    completions.post(all_ran.set, loop=loop)
    await all_ran.wait()

    assert ran == [0, 1, 2, 3, 4]


async def test_a_dozing_loop_is_woken_by_a_call():
    completions = Completions(most_doze_ns=60_000_000_000)  # it must be woken
    loop, asleep, ran = asyncio.get_running_loop(), threading.Event(), []

    def end_a_batch() -> None:
        asleep.wait(60)
        completions.post(lambda: ran.append("ended"), loop=loop)
        completions.post(lambda: ran.append("ended too"), loop=loop)

    thread = threading.Thread(target=end_a_batch)
    thread.start()
    completions.doze()
    loop.call_soon(asleep.set)  # after the first turn, before the loop falls asleep in the next
    while not ran:
        await asyncio.sleep(0)
    thread.join()
    while len(ran) < 2:
        await asyncio.sleep(0)

    assert ran == ["ended", "ended too"]


async def test_a_doze_ends_by_itself(completions):
    completions.doze()
    for _ in range(4):
        await asyncio.sleep(0)

    ran = asyncio.Event()
    completions.post(ran.set, loop=asyncio.get_running_loop())
    await ran.wait()


@pytest.fixture
def sleeps(completions, monkeypatch) -> list[float]:
    """For how long the loop fell asleep, in seconds; it is woken at once."""
    slept: list[float] = []

    class Ended:
        def get(self, timeout: float):
            slept.append(timeout)
            return lambda: None

        def get_nowait(self):
            raise queue.Empty

    monkeypatch.setattr(completions, "_ended", Ended())
    return slept


async def test_several_wishes_are_one_doze(completions, sleeps):
    for _ in range(3):
        completions.doze()
    for _ in range(4):
        await asyncio.sleep(0)
    completions.doze()
    for _ in range(4):
        await asyncio.sleep(0)

    assert sleeps == [MOST_DOZE_NS / 1e9] * 2


async def test_what_is_due_is_done_first(completions, sleeps):
    seen = []
    completions.doze()
    asyncio.get_running_loop().call_soon(lambda: seen.append(list(sleeps)))
    for _ in range(4):
        await asyncio.sleep(0)

    assert seen == [[]]
    assert len(sleeps) == 1
