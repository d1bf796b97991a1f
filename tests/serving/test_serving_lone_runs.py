"""Requests that come one at a time: run as soon as they are read, in memory of their own."""

import asyncio

import numpy as np
import pytest

from serving.policy import QueuePolicy
from serving.statistics import FailureReason
from serving.workers import EngineBudget

pytestmark = pytest.mark.anyio
US = 1_000


class Memory:
    """A batch of the model "fake", y = 2 x and z = -x, that counts how often it was run."""

    def __init__(self, rows):
        self.x = np.zeros((rows, 1), np.float32)
        self.y, self.z = np.zeros_like(self.x), np.zeros_like(self.x)
        self.places = [memoryview(self.x.reshape(-1).view(np.uint8))]
        self.runs = 0

    def run(self):
        self.runs += 1
        if self.x.min() < 0:
            raise RuntimeError("a kernel refused its input")
        self.y[:], self.z[:] = 2 * self.x, -self.x
        return [self.y, self.z]


@pytest.fixture
def memories():
    """What the engine gave, by rows."""
    return {}


@pytest.fixture
def make_lone(make_batcher, memories, calibrated):
    """A batcher whose batches take 10 us, which is short enough for the event loop."""

    def bind(rows):
        assert rows not in memories
        memories[rows] = Memory(rows)
        return memories[rows]

    def make(**policy):
        own = policy.pop("batcher", {})
        brief = {"at_once_ns": 20 * US, "service_time": calibrated(lambda _: 10 * US), "bind": bind}
        return make_batcher(batcher={**brief, **own}, **policy)

    return make


def raw(*values):
    return (np.float32([*values]).tobytes(),)


async def pause():
    """Time for the event loop to read whatever there is."""
    for _ in range(4):
        await asyncio.sleep(0)


async def come_one_at_a_time(batcher, infer, *, times=8):
    for number in range(times):
        await infer(batcher, number)
        await pause()


def run_alone(batcher, *values, timeout_ns=None):
    outputs = batcher.run_alone(raw(*values), rows=len(values), timeout_ns=timeout_ns)
    return outputs and np.frombuffer(outputs.raw[0], np.float32).tolist()


async def test_who_comes_alone_is_answered_at_once_after_eight_like_it(make_lone, infer, engine):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer, times=7)
    assert run_alone(batcher, 5) is None

    await infer(batcher, 1)
    await pause()

    assert run_alone(batcher, 5) == [10]
    await pause()
    assert run_alone(batcher, 6, 7) == [12, 14]
    assert len(engine.batches) == 8


async def test_an_input_in_pieces_is_put_together(make_lone, infer):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)
    [whole] = raw(3, 4)

    outputs = batcher.run_alone(([whole[:3], whole[3:]],), rows=2, timeout_ns=None)

    assert outputs.arrays[1].tolist() == [[-3], [-4]]


async def test_it_is_counted_like_any_other(make_lone, infer, statistics):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)

    run_alone(batcher, 1, 2)
    await pause()

    assert (statistics.success, statistics.inference_count, statistics.execution_count) == (
        9,
        10,
        9,
    )
    assert statistics.by_batch_size[2].compute_infer.count == 1
    assert statistics.request_us.counts[0] == statistics.queue_us.counts[0] == 9
    assert batcher.waiting_requests == 0


async def test_what_it_takes_is_learned(make_lone, infer, clock, memories):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)
    run_alone(batcher, 1)
    await pause()
    run = memories[1].run

    def slow():
        clock.now_ns += 10**9
        return run()

    memories[1].run = slow
    answers = 0
    while run_alone(batcher, 1) is not None:
        answers += 1
        await pause()

    assert 1 < answers < 100  # then it is known to keep the event loop for too long


async def test_who_comes_while_another_waits_has_not_come_alone(make_lone, infer, ask):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)
    waiting = await ask(batcher, 1)

    assert run_alone(batcher, 5) is None

    assert (await waiting)["y"].tolist() == [[2]]


async def test_nor_has_who_is_read_together_with_one_that_was_run(make_lone, infer, memories):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)

    assert run_alone(batcher, 5) == [10]
    assert run_alone(batcher, 6) is None
    assert (await infer(batcher, 6))["y"].tolist() == [[12]]
    assert memories[1].runs == 1


async def test_nor_has_who_is_read_together_with_one_of_another_model(make_lone, infer):
    budget = EngineBudget(2)
    one, other = (make_lone(batcher={"budget": budget, "bind": Memory}) for _ in range(2))
    await come_one_at_a_time(one, infer)
    await come_one_at_a_time(other, infer)

    assert run_alone(one, 5) == [10]
    assert run_alone(other, 6) is None
    await pause()
    assert run_alone(other, 6) == [12]


async def test_once_requests_come_together_they_are_batched_again(make_lone, infer, engine):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer, times=100)
    await asyncio.gather(*(infer(batcher, number) for number in range(8)))
    await pause()

    assert run_alone(batcher, 5) is None
    assert len(engine.batches) < 108


@pytest.mark.parametrize("timeout_ns", [0, 50 * US])
async def test_a_tight_deadline_is_judged_first(make_lone, infer, timeout_ns):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)

    assert run_alone(batcher, 5, timeout_ns=timeout_ns) is None
    assert run_alone(batcher, 5, timeout_ns=10**9) == [10]


@pytest.mark.parametrize(
    "policy",
    [
        {"budget_ns": 50 * US},
        {"queue": {"timeout_ns": 50 * US}},
        {"level_queues": {2: QueuePolicy(max_requests=9, timeout_ns=50 * US)}, "levels": 2},
        {"delay_ns": 1},
        {"preferred_rows": (4,)},
        {"batcher": {"bind": lambda _rows: None}},
        {"batcher": {"bind": None}},
    ],
)
async def test_models_that_have_other_wishes_queue_every_request(make_lone, policy, memories):
    batcher = make_lone(**policy)
    for number in range(20):
        batcher._lonely = 16  # as if nobody had waited
        assert run_alone(batcher, number) is None

    assert not memories


async def test_no_batch_is_larger_than_the_model_admits(make_lone, infer):
    batcher = make_lone(max_batch_size=8)
    await come_one_at_a_time(batcher, infer)

    assert run_alone(batcher, *range(9)) is None
    assert run_alone(batcher, *range(8)) == [2 * number for number in range(8)]


async def test_what_fails_goes_the_usual_way_and_hurts_nobody_else(
    make_lone, infer, memories, statistics
):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)

    for _ in range(20):
        assert run_alone(batcher, -1) is None
        with pytest.raises(Exception, match="a kernel refused its input"):
            await infer(batcher, -1)
        await come_one_at_a_time(batcher, infer)
        assert run_alone(batcher, 5) == [10]
        await pause()

    assert memories[1].runs == 40
    assert statistics.failure == {FailureReason.BACKEND: 20}


async def test_a_size_that_always_fails_is_no_longer_tried(make_lone, infer, memories, caplog):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)

    for _ in range(20):
        assert run_alone(batcher, -1) is None

    assert memories[1].runs == 8
    assert [each.message for each in caplog.records] == [
        "requests of 1 rows are no longer run alone"
    ]
    assert run_alone(batcher, 5) is None
    assert run_alone(batcher, 5, 6) == [10, 12]


async def test_who_gets_no_memory_goes_the_usual_way(make_lone, infer):
    asked = []

    def bind(rows):
        asked.append(rows)
        raise MemoryError

    batcher = make_lone(batcher={"bind": bind})
    await come_one_at_a_time(batcher, infer)

    assert run_alone(batcher, 5) is None
    assert run_alone(batcher, 5) is None
    assert asked == [1]


async def test_memory_is_kept_for_so_many_sizes_only(make_lone, infer, calibrated):
    bound = []

    def bind(rows):
        bound.append(rows)
        return Memory(rows)

    times = calibrated(lambda _: 10 * US, max_rows=100)
    batcher = make_lone(max_batch_size=100, batcher={"bind": bind, "service_time": times})
    await come_one_at_a_time(batcher, infer)

    for _ in range(2):
        for rows in range(1, 66):
            assert run_alone(batcher, *range(rows)) == [2 * number for number in range(rows)]
            await pause()
    assert 65 < len(bound) <= 130
    assert len(batcher._lone._bound) <= 64


async def test_a_model_that_stops_takes_no_more(make_lone, infer):
    batcher = make_lone()
    await come_one_at_a_time(batcher, infer)

    await batcher.close(drain_seconds=1)

    assert run_alone(batcher, 5) is None
