"""What a request must bring along, said in terms of model, tensor, received and expected."""

import numpy as np
import pytest

from ridgeline.errors import InvalidInput
from ridgeline.model import ModelSpec, TensorSpec
from serving.dataplane import check
from serving.request import InferRequest

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
