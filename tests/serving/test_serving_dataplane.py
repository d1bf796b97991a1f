"""What a request must bring along, said in terms of model, tensor, received and expected."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ridgeline.errors import InvalidInput, Unavailable
from ridgeline.model import ModelSpec, TensorSpec
from serving.contract import check
from serving.dataplane import DataPlane
from serving.registry import Registry
from serving.request import InferRequest
from serving.scheduler import job_arguments
from serving.statistics import FailureReason

A, B = TensorSpec("a", "FP32", (3,)), TensorSpec("b", "INT64", (-1,))
BATCHING = ModelSpec("m", 4, (A, B), (A,))
UNBATCHED = ModelSpec("m", 0, (A, B), (A,))


def _request(*, a=(2, 3), b=(2, 1), outputs=(), **more):
    inputs = {"a": np.zeros(a, np.float32), "b": np.zeros(b, np.int64), **more}
    return InferRequest(
        "m", {name: x for name, x in inputs.items() if x is not None}, outputs=outputs
    )


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("free", [0, 1, 7])
def test_what_fits_the_contract_is_taken(rows, free):
    check(_request(a=(rows, 3), b=(rows, free), outputs=("a", "a")), spec=BATCHING)


def test_a_model_without_a_batch_axis_takes_its_own_shapes():
    check(_request(a=(3,), b=(5,)), spec=UNBATCHED)


def test_a_scalar_input_takes_a_scalar():
    spec = ModelSpec("m", 0, (TensorSpec("a", "FP32", ()),), (A,))

    check(InferRequest("m", {"a": np.array(1, np.float32)}), spec=spec)
    with pytest.raises(InvalidInput, match=r"Expected \[\], got \[1\]"):
        check(InferRequest("m", {"a": np.zeros(1, np.float32)}), spec=spec)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (_request(c=np.zeros(1)), "unexpected inference input 'c' for model 'm'; expected a, b"),
        (InferRequest("m", {}), "expected 2 inputs but got 0 inputs for model 'm'; missing a, b"),
        (
            InferRequest("m", {"b": np.zeros((1, 1), np.int64)}),
            "expected 2 inputs but got 1 inputs for model 'm'; missing a",
        ),
        (
            _request(a=(2, 4)),
            r"unexpected shape for input 'a' for model 'm'. Expected \[-1, 3\], got \[2, 4\]",
        ),
        (_request(a=(3,)), r"input 'a' for model 'm'. Expected \[-1, 3\], got \[3\]"),
        (_request(a=()), r"input 'a' for model 'm'. Expected \[-1, 3\], got \[\]"),
        (
            InferRequest("m", {"a": np.zeros((1, 3)), "b": np.zeros((1, 1), np.int64)}),
            "input 'a' has datatype FP64, model 'm' expects FP32",
        ),
        (
            _request(a=(2, 3), b=(3, 1)),
            "inputs of model 'm' must have equal batch sizes, got {'a': 2, 'b': 3}",
        ),
        (_request(a=(5, 3), b=(5, 1)), "batch-size must be between 1 and 4 for 'm', got 5"),
        (_request(a=(0, 3), b=(0, 1)), "batch-size must be between 1 and 4 for 'm', got 0"),
        (
            _request(outputs=("a", "q")),
            "unexpected inference output 'q' for model 'm'; its outputs are a",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_so_many_words(request_, words):
    with pytest.raises(InvalidInput, match=words):
        check(request_, spec=BATCHING)


def test_a_job_takes_over_what_the_request_says():
    request = _request(outputs=("a",))
    request = replace(request, deadline_ns=9, priority=2, timeout_ns=7)

    arguments = job_arguments(request, spec=BATCHING)

    assert [array.dtype for array in arguments.pop("inputs")] == [np.float32, np.int64]
    assert arguments == {
        "rows": 2,
        "size_bytes": 2 * 3 * 4 + 2 * 1 * 8,
        "outputs": ("a",),
        "shape_key": ((3,), (1,)),
        "deadline_ns": 9,
        "timeout_ns": 7,
        "priority": 2,
    }


def test_inputs_are_in_the_order_of_the_model_not_of_the_request():
    request = _request()
    turned = replace(request, inputs=dict(reversed(request.inputs.items())))

    first, second = job_arguments(turned, spec=BATCHING)["inputs"]

    assert (first.shape, second.shape) == ((2, 3), (2, 1))


def test_only_free_axes_keep_requests_apart():
    fixed = ModelSpec("m", 4, (A,), (A,))
    request = InferRequest("m", {"a": np.zeros((2, 3), np.float32)})

    assert job_arguments(request, spec=fixed)["shape_key"] is None
    unbatched = job_arguments(_request(a=(3,), b=(5,)), spec=UNBATCHED)
    assert (unbatched["shape_key"], unbatched["rows"]) == (None, 1)


@pytest.fixture
async def registry(repository, models, settings):
    repository.add("identity", models.identity())
    registry = Registry(settings)
    await registry.load()
    yield registry
    await registry.close(drain_seconds=60)


def _ask(**what) -> InferRequest:
    return InferRequest("identity", {"x": np.ones((1, 2), np.float32)}, **what)


@pytest.mark.anyio
async def test_a_request_is_answered_with_model_version_and_id(registry):
    response = await DataPlane(registry).infer(_ask(id="7"))

    assert (response.model_name, response.model_version, response.id) == ("identity", "1", "7")
    assert response.outputs["y"].tolist() == [[1, 1]]


@pytest.mark.anyio
async def test_a_request_of_the_wrong_kind_is_counted_and_refused(registry):
    with pytest.raises(InvalidInput):
        await DataPlane(registry).infer(InferRequest("identity", {}))

    statistics = registry.find("identity").statistics
    assert statistics.invalid == 1
    assert not statistics.failure  # as in Triton


@pytest.mark.anyio
async def test_a_caller_that_leaves_takes_its_request_along(registry, monkeypatch):
    model = registry.find("identity")
    monkeypatch.setattr(model.batcher, "_dispatch", lambda: None)  # it starts no batch
    leaver = asyncio.create_task(DataPlane(registry).infer(_ask()))
    await asyncio.sleep(0)
    assert model.batcher.waiting_requests == 1

    leaver.cancel()
    await asyncio.wait([leaver])

    assert model.batcher.waiting_requests == 0
    assert model.statistics.failure == {FailureReason.CANCELED: 1}


@pytest.mark.anyio
async def test_whoever_remembers_a_model_sees_that_it_has_gone(registry):
    dataplane = DataPlane(registry)
    before = dataplane.generation
    assert dataplane.find("identity").version == "1"

    await registry.close(drain_seconds=0)

    assert dataplane.generation != before
    with pytest.raises(Unavailable):
        dataplane.find("identity")
