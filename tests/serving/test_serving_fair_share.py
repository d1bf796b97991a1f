"""Two models under load: a heavy one leaves a light one its turn."""

import asyncio

import pytest

from serving.workers import EngineBudget

pytestmark = pytest.mark.anyio


async def test_a_heavy_model_under_load_cannot_starve_a_light_one(
    make_batcher, make_engine, ask, infer
):
    budget = EngineBudget(2)
    heavy_engine, light_engine = make_engine(held=True), make_engine()
    heavy, light = (
        make_batcher(of=engine, instances=2, max_batch_size=1, batcher={"budget": budget})
        for engine in (heavy_engine, light_engine)
    )
    load = [await ask(heavy, n) for n in range(20)]
    await heavy_engine.entered(2)  # both cores are taken, and a queue waits

    for number in range(10):  # each is answered while no batch of the heavy model ends
        assert (await infer(light, number))["y"].tolist() == [[2 * number]]

    assert not any(request.done() for request in load)
    assert heavy.waiting_requests == 18
    heavy_engine.let_go(20)
    await asyncio.gather(*load)


async def test_a_light_model_has_one_core_of_two_while_both_are_busy(
    make_batcher, make_engine, ask
):
    budget = EngineBudget(2)
    engines = [make_engine(held=True) for _ in range(2)]
    batchers = [
        make_batcher(of=engine, instances=2, max_batch_size=1, batcher={"budget": budget})
        for engine in engines
    ]
    heavy = [await ask(batchers[0], n) for n in range(6)]
    await engines[0].entered(2)
    light = [await ask(batchers[1], n) for n in range(6)]
    await engines[1].entered()

    engines[0].let_go()  # three batches were running on two cores: nobody takes its place
    await asyncio.wait(heavy, return_when=asyncio.FIRST_COMPLETED)
    for number in range(1, 6):  # from here on, each model replaces its own batch
        engines[1].let_go()
        await engines[1].entered()
        assert len(engines[1].batches) == number + 1
        assert len(engines[0].batches) == 2

    for engine in engines:
        engine.let_go(6)
    await asyncio.gather(*heavy, *light)
