"""Shapes that clients see, and those that the model does."""

import numpy as np
import pytest

from conformance import onnx_models
from ridgeline.errors import InvalidInput, NotFound
from ridgeline.model import parse_config
from serving.registry import Registry
from serving.request import InferRequest
from serving.reshape import Reshape, reshapes_of

pytestmark = pytest.mark.anyio
SCALAR = onnx_models.identity(datatype="FP32", shape=("batch",), pairs={"x": "y"})
TENSOR = '{ name: "%s" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }\n'
VECTORS = f"max_batch_size: 8\ninput {TENSOR % 'x'}output {TENSOR % 'y'}"


@pytest.mark.parametrize(
    ("before", "after", "received", "made"),
    [
        ((1,), (), (3, 1), (3,)),
        ((), (1,), (3,), (3, 1)),
        ((2, 3), (6,), (4, 2, 3), (4, 6)),
        ((-1, 6), (-1, 2, 3), (4, 5, 6), (4, 5, 2, 3)),
        ((-1, 4, -1), (-1, 2, 2, -1), (1, 7, 4, 9), (1, 7, 2, 2, 9)),
        ((-1, 1), (-1,), (2, 0, 1), (2, 0)),
    ],
)
def test_the_batch_stays_and_free_axes_keep_their_order(before, after, received, made):
    array = np.arange(np.prod(received)).reshape(received)

    changed = Reshape("x", before, after).of(array, batches=True)

    assert changed.shape == made
    assert changed.ravel().tolist() == array.ravel().tolist()


@pytest.mark.parametrize(
    ("before", "after"), [((2,), ()), ((-1, 2), (2, -1)), ((-1,), (-1, -1)), ((6,), (-1, 6))]
)
def test_elements_that_would_not_stay_where_they_are_are_refused(before, after):
    with pytest.raises(InvalidInput, match="'x' cannot be reshaped between"):
        Reshape("x", before, after)


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 1), (2,)])
def test_an_array_of_another_shape_is_refused(shape):
    with pytest.raises(InvalidInput, match=r"'x' must have the shape \[1\] to be reshaped"):
        Reshape("x", (1,), ()).of(np.zeros(shape), batches=True)


def test_without_a_configuration_nothing_is_reshaped():
    assert not reshapes_of(None)
    assert not reshapes_of(parse_config("max_batch_size: 8", source="x"))


async def test_a_model_of_scalars_is_served_as_one_of_vectors(repository, settings):
    repository.add("m", SCALAR, config=VECTORS)
    registry = Registry(settings)
    await registry.load()
    model = registry.find("m")
    x = np.array([[1.5], [2.5]], np.float32)

    response = await model.scheduler.infer(InferRequest("m", {"x": x}))

    assert response.outputs["y"].tolist() == [[1.5], [2.5]]
    assert [tensor.shape for tensor in model.loaded.spec.inputs] == [(1,)]
    with pytest.raises(InvalidInput, match="unexpected shape for input 'x'"):
        await model.scheduler.infer(InferRequest("m", {"x": x.ravel()}))
    await registry.close(drain_seconds=10)


async def test_a_graph_of_other_shapes_is_refused(repository, models, settings):
    repository.add("m", models.identity(), config=VECTORS)
    registry = Registry(settings)
    await registry.load()

    with pytest.raises(NotFound, match=r"config.pbtxt reshapes 'x' to \[-1\], but the graph has"):
        registry.find("m")
    await registry.close(drain_seconds=10)


async def test_a_python_model_sees_its_own_shapes(repository, settings):
    folder = repository.root / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(
        "import triton_python_backend_utils as pb\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        x = [pb.get_input_tensor_by_name(r, 'x').as_numpy() for r in requests]\n"
        "        assert all(each.ndim == 1 for each in x), [each.shape for each in x]\n"
        "        return [pb.InferenceResponse([pb.Tensor('y', each)]) for each in x]\n"
    )
    (folder.parent / "config.pbtxt").write_text(f'backend: "python"\n{VECTORS}')
    registry = Registry(settings)
    await registry.load()
    x = np.array([[1.5], [2.5]], np.float32)

    response = await registry.find("m").scheduler.infer(InferRequest("m", {"x": x}))

    assert response.outputs["y"].tolist() == x.tolist()
    await registry.close(drain_seconds=10)
