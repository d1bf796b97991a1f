"""Ensembles at work: tensors go from step to step, and what is computed is counted."""

import numpy as np
import pytest

from ridgeline.errors import InvalidInput
from tests.serving.ensembles.diamond import A, B, ask, plan

pytestmark = pytest.mark.anyio


async def test_tensors_go_from_step_to_step_whatever_the_order_they_are_written_in(diamond):
    response = await ask(await diamond(), id="7")

    assert list(response.outputs) == ["TWICE_A", "TWICE_B", "SUM"]
    np.testing.assert_array_equal(response.outputs["TWICE_A"], 2 * A)
    np.testing.assert_array_equal(response.outputs["TWICE_B"], 2 * B)
    np.testing.assert_array_equal(response.outputs["SUM"], A + B)
    assert (response.model_name, response.model_version, response.id) == ("e", "1", "7")
    assert response.parameters == {
        "sequence_id": 0, "sequence_start": False, "sequence_end": False,
    }  # fmt: skip


async def test_only_the_steps_that_an_output_needs_are_run(diamond):
    registry = await diamond()

    response = await ask(registry, outputs=("SUM",))

    assert list(response.outputs) == ["SUM"]
    assert registry.find("pair").statistics.execution_count == 1
    assert registry.find("copy").statistics.execution_count == 0


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((3,), {"batch": 0}),  # the steps get a batch axis of one row, which goes again
        ((1, 3), {"batch": 0, "dims": "[ 1, 3 ]"}),
        ((5, 3), {"batch": 0, "dims": "[ -1, 3 ]"}),
    ],
)
async def test_an_ensemble_without_a_batch_axis_uses_models_that_have_one(diamond, shape, what):
    registry = await diamond(**what)
    a, b = np.full(shape, 3, np.float32), np.ones(shape, np.float32)

    response = await ask(registry, a, b)

    assert {array.shape for array in response.outputs.values()} == {shape}
    np.testing.assert_array_equal(response.outputs["TWICE_A"], 2 * a)


async def test_a_model_without_a_batch_axis_takes_batches_of_one(repository, models, add, registry):
    repository.add("copy", models.identity(shape=(3,)))
    repository.add("pair", models.two_inputs(), config="max_batch_size: 8")
    add(plan())
    await registry.load()

    response = await ask(registry, A[:1], B[:1])
    np.testing.assert_array_equal(response.outputs["TWICE_A"], 2 * A[:1])

    with pytest.raises(InvalidInput, match=r"in ensemble 'e', .*'copy'.* Expected \[3\], got \[2"):
        await ask(registry)


async def test_what_does_not_fit_the_ensemble_is_refused_before_any_step(diamond):
    registry = await diamond()

    with pytest.raises(InvalidInput, match="batch-size must be between 1 and 4 for 'e', got 5"):
        await ask(registry, np.ones((5, 3), np.float32), np.ones((5, 3), np.float32))
    with pytest.raises(InvalidInput, match="unexpected inference output 'difference'"):
        await ask(registry, outputs=("difference",))

    assert registry.find("e").statistics.invalid == 2
    assert registry.find("pair").statistics.execution_count == 0


async def test_the_statistics_count_the_computing_of_all_steps(diamond):
    registry = await diamond()

    await ask(registry)

    ensemble = registry.find("e").statistics
    steps = [registry.find(name).statistics for name in ("pair", "copy")]
    assert (ensemble.success, ensemble.inference_count, ensemble.execution_count) == (1, 2, 1)
    assert [step.execution_count for step in steps] == [2, 1]
    assert ensemble.compute_infer_ns == sum(step.compute_infer_ns for step in steps)
    assert ensemble.queue_ns == 0
    assert list(ensemble.by_batch_size) == [2]
