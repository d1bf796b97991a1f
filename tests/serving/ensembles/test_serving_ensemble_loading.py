"""Ensembles come and go with the models of their steps."""

import asyncio
import dataclasses

import numpy as np
import pytest

from ridgeline.errors import NotFound, RidgelineError, Unavailable
from serving.request import InferRequest
from tests.serving.ensembles.diamond import A, Recorder, ask, plan, request

pytestmark = pytest.mark.anyio


async def test_a_stopping_server_finishes_ensembles_before_their_models(diamond):
    registry = await diamond()
    scheduler, pair = registry.find("e").scheduler, Recorder(registry, "pair")
    pair.go_on.clear()
    asked = asyncio.create_task(ask(registry))
    await pair.entered.wait()

    closing = asyncio.create_task(registry.close(drain_seconds=60))
    while not scheduler._closing:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="'e' is stopping and takes no new requests"):
        await scheduler.infer(request())
    pair.go_on.set()

    assert set((await asked).outputs) == {"TWICE_A", "TWICE_B", "SUM"}
    await closing


async def test_what_does_not_end_in_time_fails_with_its_models(diamond):
    registry = await diamond()
    pair = Recorder(registry, "pair")
    pair.go_on.clear()
    asked = asyncio.create_task(ask(registry))
    await pair.entered.wait()

    await registry.close(drain_seconds=0)

    with pytest.raises(RidgelineError, match="in ensemble 'e'"):
        await asked


async def test_a_model_that_comes_again_is_used_at_once_and_one_that_goes_is_missed(diamond):
    registry = await diamond()
    pair = next(served for served in registry if served.name == "pair")
    before = pair.ready
    pair.ready = dataclasses.replace(before)
    assert (await ask(registry)).outputs

    pair.ready = None
    with pytest.raises(Unavailable, match=r"'e' depends on 'pair' which has no loaded version"):
        await ask(registry)

    loaded = dataclasses.replace(before.loaded, spec=registry.find("copy").loaded.spec)
    pair.ready = dataclasses.replace(before, loaded=loaded)
    with pytest.raises(Unavailable, match=r"was loaded that does not fit: .* non-existing input a"):
        await ask(registry)
    pair.ready = before
    assert (await ask(registry)).outputs


async def test_ensembles_of_ensembles_are_loaded_in_the_order_they_need(diamond, add, registry):
    outer = """
    platform: "ensemble"
    max_batch_size: 4
    input { name: "A" data_type: TYPE_FP32 dims: 3 }
    output { name: "OUT" data_type: TYPE_FP32 dims: 3 }
    ensemble_scheduling { step {
      model_name: "e" model_version: -1
      input_map { key: "A" value: "A" } input_map { key: "B" value: "A" }
      output_map { key: "SUM" value: "OUT" }
    } }
    """
    add(outer, "a")
    await diamond()

    response = await registry.find("a").scheduler.infer(InferRequest("a", {"A": A}))

    np.testing.assert_array_equal(response.outputs["OUT"], 2 * A)


async def test_ensembles_that_depend_on_each_other_are_unavailable(add, registry):
    for name, other in ("ab", "ba"):
        one = plan().replace('"pair"', f'"{other}"').replace('"copy"', f'"{other}"')
        add(one, name)
    await registry.load()

    for name in "ab":
        with pytest.raises((Unavailable, NotFound), match="which has no loaded version"):
            registry.find(name)
