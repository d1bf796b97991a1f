"""Batching: what shares a batch; what becomes of a request that fails, leaves or is late."""

import asyncio

import numpy as np
import pytest

from ridgeline.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from serving.execution import EngineFault
from serving.job import FutureJob
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio


def _rows(batch: np.ndarray) -> list[float]:
    return batch[:, 0].tolist()


async def test_each_caller_receives_its_own_rows(make_batcher, infer):
    batcher = make_batcher()

    answers = await asyncio.gather(*(infer(batcher, n, n + 0.5) for n in range(4)))

    for n, answer in enumerate(answers):
        assert _rows(answer["y"]) == [2 * n, 2 * n + 1]
        assert _rows(answer["z"]) == [-n, -n - 0.5]


async def test_a_batch_is_what_arrived_while_the_engine_was_busy(busy, engine, ask):
    batcher, first = busy
    waiting = [await ask(batcher, n) for n in (1, 2, 3)]
    assert batcher.waiting_requests == 3

    engine.let_go(2)
    await asyncio.gather(first, *waiting)

    assert [_rows(batch) for batch in engine.batches] == [[0], [1, 2, 3]]
    assert batcher.waiting_requests == 0


async def test_requests_that_arrive_together_share_the_first_batch(make_batcher, engine, infer):
    batcher = make_batcher()

    await asyncio.gather(*(infer(batcher, n) for n in range(3)))

    assert [_rows(batch) for batch in engine.batches] == [[0, 1, 2]]


async def test_a_batch_has_at_most_max_batch_size_rows_and_a_request_fills_what_is_left(
    busy, engine, ask
):
    batcher, first = busy
    waiting = [await ask(batcher, *([n] * 3)) for n in (1, 2, 3)]

    engine.let_go(3)
    await asyncio.gather(first, *waiting)

    assert [_rows(batch) for batch in engine.batches] == [[0], [1, 1, 1, 2, 2, 2, 3, 3], [3]]


async def test_a_model_without_a_batch_axis_runs_one_request_at_a_time(make_batcher, engine, infer):
    batcher = make_batcher(max_batch_size=0, shape=(2, 1))

    answers = await asyncio.gather(*(infer(batcher, n, n) for n in range(3)))

    assert [_rows(answer["y"]) for answer in answers] == [[0, 0], [2, 2], [4, 4]]
    assert [batch.shape for batch in engine.batches] == [(2, 1)] * 3


async def test_requests_of_different_shapes_never_share_a_batch(make_batcher, engine, infer):
    batcher = make_batcher(shape=(-1,))
    wide, narrow = np.ones((1, 5), np.float32), np.ones((1, 2), np.float32)

    answers = await asyncio.gather(*(infer(batcher, x=x) for x in (wide, narrow, wide)))

    assert [answer["y"].shape for answer in answers] == [(1, 5), (1, 2), (1, 5)]
    assert [batch.shape for batch in engine.batches] == [(2, 5), (1, 2)]


async def test_as_many_batches_run_at_once_as_there_are_instances(make_batcher, engine, ask):
    engine.held = True
    batcher = make_batcher(instances=2, max_batch_size=1)
    requests = [await ask(batcher, n) for n in range(3)]

    await engine.entered()
    await engine.entered()
    assert batcher.waiting_requests == 1

    engine.let_go(3)
    await asyncio.gather(*requests)
    assert len(engine.threads) == 2


async def test_a_request_receives_only_the_outputs_it_asked_for_in_its_order(busy, engine, ask):
    batcher, first = busy
    both, only_z = await ask(batcher, 1, outputs=("z", "y")), await ask(batcher, 2, outputs=("z",))

    engine.let_go(2)

    assert list(await both) == ["z", "y"]
    assert list(await only_z) == ["z"]
    assert list(await first) == ["y", "z"]


async def test_the_engine_computes_only_what_somebody_asked_for(busy, engine, ask):
    batcher, first = busy
    waiting = [await ask(batcher, n, outputs=("z",)) for n in (1, 2)]

    engine.let_go(2)
    await asyncio.gather(first, *waiting)

    assert engine.asked == [("y", "z"), ("z",)]


async def test_an_output_asked_for_twice_is_given_once(make_batcher, infer):
    assert list(await infer(make_batcher(), 1, outputs=("y", "y"))) == ["y"]


async def test_a_poisoned_request_fails_alone_and_its_batch_mates_are_answered(
    busy, engine, statistics, ask
):
    batcher, first = busy
    good, poisoned, good_too = [await ask(batcher, n) for n in (1, -1, 2)]

    engine.let_go(5)

    assert _rows((await good)["y"]) == [2]
    assert _rows((await good_too)["y"]) == [4]
    with pytest.raises(EngineFault, match=r"model 'fake': a kernel refused its input"):
        await poisoned
    await first
    assert [_rows(batch) for batch in engine.batches] == [[0], [1, -1, 2], [1], [-1], [2]]
    assert statistics.failure == {FailureReason.BACKEND: 1}
    assert statistics.success == 3
    assert statistics.execution_count == 5


async def test_what_the_engine_says_of_an_input_is_the_callers_fault_not_ours(
    make_batcher, engine, infer
):
    def refuse(_inputs, /, *, outputs, alone):  # noqa: ARG001
        raise InvalidInput(f"an input is not fit for {len(outputs)} outputs")

    engine.run = refuse

    with pytest.raises(InvalidInput, match=r"model 'fake': an input is not fit for 2 outputs"):
        await infer(make_batcher(), 1)


async def test_an_output_with_a_wrong_number_of_rows_is_an_error_for_every_caller(
    make_batcher, engine, infer
):
    engine.rows_lost = 1
    batcher = make_batcher()

    answers = await asyncio.gather(
        *(infer(batcher, n, n) for n in range(2)), return_exceptions=True
    )

    for answer in answers:
        assert isinstance(answer, EngineFault)
        assert "output 'y' of model 'fake' has shape [1, 1]" in str(answer)
        assert "expected 2 rows" in str(answer)


async def test_a_cancelled_caller_leaves_its_batch_mates_alone(busy, engine, statistics, ask):
    batcher, first = busy
    mate, leaver, mate_too = [await ask(batcher, n) for n in (1, 2, 3)]
    engine.let_go(1)
    await first
    await engine.entered()  # all three are with the engine now

    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    engine.let_go(1)

    assert _rows((await mate)["y"]) == [2]
    assert _rows((await mate_too)["y"]) == [6]
    assert statistics.failure == {FailureReason.CANCELED: 1}
    assert statistics.success == 3


async def test_a_caller_that_leaves_while_waiting_never_reaches_the_engine(busy, engine, ask):
    batcher, first = busy
    leaver, stayer = await ask(batcher, 1), await ask(batcher, 2)

    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert batcher.waiting_requests == 1
    engine.let_go(2)
    await asyncio.gather(first, stayer)

    assert [_rows(batch) for batch in engine.batches] == [[0], [2]]


async def test_a_caller_that_leaves_just_as_the_batch_is_made_harms_nobody(
    make_batcher, statistics, infer
):
    batcher = make_batcher()
    leaver, stayer = (asyncio.create_task(infer(batcher, n)) for n in (1, 2))
    await asyncio.sleep(0)

    leaver.cancel()  # its task hears of that after the batch is made

    assert _rows((await stayer)["y"]) == [4]
    assert leaver.cancelled()
    assert statistics.failure == {FailureReason.CANCELED: 1}
    assert statistics.success == 1


async def test_callers_that_all_leave_while_waiting_let_the_batcher_come_to_rest(busy, engine, ask):
    batcher, first = busy
    leavers = [await ask(batcher, n) for n in (1, 2)]
    for leaver in leavers:
        leaver.cancel()
    await asyncio.wait(leavers)

    engine.let_go()
    await first
    await batcher.close(drain_seconds=60)

    assert [_rows(batch) for batch in engine.batches] == [[0]]


async def test_a_caller_that_leaves_when_its_answer_is_there_counts_once(
    make_batcher, monkeypatch, statistics, infer
):
    batcher = make_batcher()
    deliver = batcher._deliver

    def deliver_and_cancel(*arguments):
        deliver(*arguments)
        leaver.cancel()  # its answer is there, but its task has not run since

    monkeypatch.setattr(batcher, "_deliver", deliver_and_cancel)
    leaver = asyncio.create_task(infer(batcher, 1))
    await asyncio.wait([leaver])

    assert leaver.cancelled()
    assert statistics.success == 1
    assert statistics.failure == {}


async def test_a_full_queue_refuses_at_once_and_says_how_large_it_is(
    make_batcher, engine, statistics, infer, ask
):
    engine.held = True
    batcher = make_batcher(max_queue_size=2)
    first = await ask(batcher, 0)
    await engine.entered()
    waiting = [await ask(batcher, n) for n in (1, 2)]

    with pytest.raises(Overloaded, match=r"model 'fake': Exceeds maximum queue size of 2"):
        await infer(batcher, 3)

    engine.let_go(2)
    await asyncio.gather(first, *waiting)
    assert statistics.failure == {FailureReason.REJECTED: 1}
    assert [_rows(batch) for batch in engine.batches] == [[0], [1, 2]]


async def test_a_place_in_the_queue_is_free_again_when_its_request_leaves(
    make_batcher, engine, ask
):
    engine.held = True
    batcher = make_batcher(max_queue_size=1)
    first = await ask(batcher, 0)
    await engine.entered()
    leaver = await ask(batcher, 1)
    leaver.cancel()
    await asyncio.wait([leaver])

    stayer = await ask(batcher, 2)

    engine.let_go(2)
    await asyncio.gather(first, stayer)


async def test_a_request_whose_deadline_passed_while_waiting_never_reaches_the_engine(
    busy, engine, clock, statistics, ask
):
    batcher, first = busy
    late = await ask(batcher, 1, deadline_ns=clock.now_ns + 10)
    in_time = await ask(batcher, 2, deadline_ns=clock.now_ns + 11)

    clock.now_ns += 10
    engine.let_go(2)

    with pytest.raises(DeadlineExceeded, match="model 'fake': the deadline passed"):
        await late
    await asyncio.gather(first, in_time)
    assert [_rows(batch) for batch in engine.batches] == [[0], [2]]
    assert statistics.failure == {FailureReason.REJECTED: 1}


async def test_a_stopping_batcher_answers_what_it_accepted_and_refuses_the_rest(
    busy, engine, statistics, infer, ask
):
    batcher, first = busy
    waiting = await ask(batcher, 1)
    closing = asyncio.create_task(batcher.close(drain_seconds=60))
    await asyncio.sleep(0)

    with pytest.raises(Unavailable, match=r"model 'fake' is stopping"):
        await infer(batcher, 2)
    assert not engine.stopped
    engine.let_go(2)
    await closing

    assert _rows((await first)["y"]) == [0]
    assert _rows((await waiting)["y"]) == [2]
    assert engine.stopped
    assert statistics.failure == {FailureReason.REJECTED: 1}


async def test_a_batcher_that_cannot_drain_in_time_answers_its_callers_with_the_reason(
    busy, engine, statistics, ask
):
    batcher, first = busy
    waiting = [await ask(batcher, n) for n in (1, 2)]

    await batcher.close(drain_seconds=0)

    for caller in waiting:
        with pytest.raises(Unavailable, match=r"model 'fake' is stopping"):
            await caller
    with pytest.raises(EngineFault, match="cut short"):
        await first
    assert [_rows(batch) for batch in engine.batches] == [[0]]
    assert statistics.failure == {FailureReason.REJECTED: 2, FailureReason.BACKEND: 1}


async def test_an_idle_batcher_closes_at_once_and_closing_twice_is_harmless(make_batcher):
    batcher = make_batcher()

    await batcher.close(drain_seconds=0)
    await batcher.close(drain_seconds=0)


async def test_a_caller_that_cannot_take_its_answer_harms_nobody(
    make_batcher, infer, caplog, monkeypatch
):
    batcher = make_batcher()
    answer = FutureJob.answer

    def break_one(job, outputs, first, last):
        if job.inputs[0][0, 0] == 1:
            raise ConnectionResetError
        answer(job, outputs, first, last)

    monkeypatch.setattr(FutureJob, "answer", break_one)
    unlucky, lucky = (asyncio.create_task(infer(batcher, n)) for n in (1, 2))

    assert _rows((await lucky)["y"]) == [4]
    assert "an answer could not be handed over" in caplog.text
    await batcher.close(drain_seconds=60)  # nothing is thought to be under way
    unlucky.cancel()


async def test_a_caller_that_cannot_take_its_error_harms_nobody(
    make_batcher, infer, caplog, monkeypatch
):
    batcher = make_batcher()

    def break_all(_job, error):
        raise ConnectionResetError from error

    monkeypatch.setattr(FutureJob, "fail", break_all)
    unlucky, lucky = (asyncio.create_task(infer(batcher, n)) for n in (-1, 2))

    assert _rows((await lucky)["y"]) == [4]
    assert "a refusal could not be handed over" in caplog.text
    await batcher.close(drain_seconds=60)
    unlucky.cancel()


async def test_the_statistics_count_every_request_row_and_batch(
    busy, engine, clock, statistics, ask
):
    batcher, first = busy
    clock.now_ns += 5_000
    waiting = [await ask(batcher, *([1] * rows)) for rows in (1, 2)]
    clock.now_ns += 20_000
    engine.let_go(2)
    await asyncio.gather(first, *waiting)

    assert statistics.success == 3
    assert statistics.inference_count == 4
    assert statistics.execution_count == 2
    # The first went to the engine at once; the others arrived 5 us later and waited 20 us for it.
    assert statistics.queue_ns == 0 + 20_000 + 20_000
    assert statistics.request_ns == 25_000 + 20_000 + 20_000
    assert statistics.queue_us.sum == 40
    assert statistics.queue_us.counts[:3] == [1, 2, 0]  # up to 10 us, up to 20 us, up to 50 us
    assert statistics.request_us.counts[:3] == [0, 2, 1]
    assert statistics.batch_rows.sum == 4
    assert statistics.batch_rows.counts[:3] == [1, 0, 1]  # 1 row, 2 rows, up to 4 rows
    assert sum(statistics.compute_infer_us.counts) == 2
    assert statistics.failure == {}
