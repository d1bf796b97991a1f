"""From a folder to a version that answers: completed configurations, and clear refusals."""

from dataclasses import replace

import numpy as np
import pytest

from ridgeline.cost import ModelCost
from ridgeline.errors import CorruptData, InvalidInput, NotFound, RidgelineError, Unsupported
from ridgeline.model import ModelSpec, TensorSpec, config_of, spec_of
from ridgeline.repository import ModelCard, publish, scan
from serving.loading import load_version, versions_to_serve

X, Y = (TensorSpec(name, "FP32", (2,)) for name in "xy")
IDENTITY = """
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
"""


@pytest.fixture
def load(repository, settings):
    """Loads version 1 of the only model of the repository."""

    def load():
        [model] = scan(repository.root)
        return load_version(model, version=1, settings=settings, on_engine=lambda _: None)

    return load


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (None, (10,)),
        ("", (10,)),
        ("version_policy { all {} }", (1, 2, 10)),
        ("version_policy { latest { num_versions: 2 } }", (2, 10)),
        ("version_policy { latest {} }", (10,)),
        ("version_policy { specific { versions: [2, 1] } }", (1, 2)),
    ],
)
def test_the_version_policy_picks_the_versions(repository, models, policy, served):
    for version in (1, 2, 10):
        repository.add("m", models.identity(), version=version, config=policy)
    [model] = scan(repository.root)

    assert versions_to_serve(model) == served


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("version_policy { specific { versions: [1, 7] } }", r"names versions \[7\].* holds \[1\]"),
        ("version_policy { specific {} }", "the version policy of 'm' names no version"),
        ("version_policy { all {", "is not a valid model configuration"),
        ('name: "other"', "names the model 'other', but its folder is 'm'"),
    ],
)
def test_a_policy_that_cannot_be_followed_says_why(repository, models, policy, words):
    repository.add("m", models.identity(), config=policy)
    [model] = scan(repository.root)

    with pytest.raises(RidgelineError, match=words):
        versions_to_serve(model)


def test_a_folder_without_versions_says_what_is_expected(repository):
    (repository.root / "m" / "latest").mkdir(parents=True)
    [model] = scan(repository.root)

    with pytest.raises(NotFound, match=r"holds no version; expected .*m/1/model\.onnx"):
        versions_to_serve(model)


def test_a_model_without_configuration_batches_where_its_first_axis_is_free(
    repository, models, load, settings
):
    repository.add("m", models.identity())

    loaded = load()

    assert loaded.spec == ModelSpec("m", settings.default_max_batch_size, (X,), (Y,))
    assert loaded.instances == 1
    assert loaded.config.HasField("dynamic_batching")
    assert loaded.config.backend == "onnxruntime"


@pytest.mark.parametrize("shape", [(1, 2), (), (3,)])
def test_a_model_without_a_free_first_axis_does_not_batch(repository, models, load, shape):
    repository.add("m", models.identity(shape=shape))

    spec = load().spec

    assert spec.max_batch_size == 0
    assert spec.inputs == (TensorSpec("x", "FP32", shape),)


def test_a_free_first_axis_that_is_no_batch_axis_is_found_out(repository, models, load):
    repository.add("m", models.doubled_rows())

    spec = load().spec

    assert spec.max_batch_size == 0
    assert spec.inputs == (TensorSpec("x", "FP32", (-1, 2)),)


def test_what_the_configuration_says_beside_that_is_kept(repository, models, load):
    repository.add("m", models.doubled_rows(), config="instance_group { count: 2 }")

    loaded = load()

    assert loaded.spec.max_batch_size == 0
    assert [group.count for group in loaded.config.instance_group] == [2]


def test_a_promised_batch_axis_that_is_none_is_refused(repository, models, load):
    repository.add("m", models.doubled_rows(), config="max_batch_size: 4")

    with pytest.raises(
        InvalidInput, match="max_batch_size is 4, but the graph does not give one row"
    ):
        load()


def test_a_model_that_cannot_be_warmed_up_is_served_all_the_same(repository, models, load, caplog):
    repository.add("m", models.lookup(offset=3))

    assert load().spec.max_batch_size > 1
    assert "could not be warmed up" in caplog.text


@pytest.mark.parametrize(
    "config",
    [
        "instance_group { count: 3 }",
        "max_batch_size: 32 instance_group { count: 3 }",
        f"max_batch_size: 32 instance_group {{ count: 3 }} {IDENTITY}",
    ],
)
def test_what_the_configuration_leaves_out_is_taken_from_the_graph(
    repository, models, load, config
):
    repository.add("m", models.identity(), config=config)

    loaded = load()

    assert loaded.spec == ModelSpec("m", 32, (X,), (Y,))
    assert [group.count for group in loaded.config.instance_group] == [3]
    assert loaded.instances == 3


def test_a_configuration_may_hide_an_output_and_fix_a_free_axis(repository, models, load):
    repository.add(
        "m",
        models.two_inputs(),
        config='max_batch_size: 4 output { name: "sum" data_type: TYPE_FP32 dims: 3 }',
    )

    assert [tensor.name for tensor in load().spec.outputs] == ["sum"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            'input { name: "q" data_type: TYPE_FP32 dims: [-1, 2] }',
            r"names the input 'q', but the graph has \['x'\]",
        ),
        (
            'input { name: "x" data_type: TYPE_INT64 dims: [-1, 2] }',
            r"the input 'x' as INT64 \[-1, 2\], but the graph has FP32 \[-1, 2\]",
        ),
        (
            'max_batch_size: 4 output { name: "y" data_type: TYPE_FP32 dims: 3 }',
            r"the output 'y' as FP32 \[-1, 3\], but the graph has FP32 \[-1, 2\]",
        ),
        (
            'max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [2, 1] }',
            r"the input 'x' as FP32 \[-1, 2, 1\]",
        ),
        ('input { name: "x" data_type: TYPE_FP32 dims: -2 }', "sizes of 'x' must be at least -1"),
        (
            'input { name: "x" dims: 2 }',
            "expected a datatype of config.pbtxt, received TYPE_INVALID",
        ),
        ("max_batch_size: -1", "max_batch_size of 'm' must not be negative"),
        ('backend: "tensorrt"', "asks for 'tensorrt'"),
        ('platform: "tensorflow_savedmodel"', "asks for 'tensorflow_savedmodel'"),
        ("ensemble_scheduling {}", "its platform must be"),
        ('batch_input { target_name: "x" }', "uses 'batch_input'"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 2 reshape {} }', "'x' cannot be reshaped"),
    ],
)
def test_a_configuration_that_does_not_fit_the_graph_or_us_says_why(
    repository, models, load, config, words
):
    repository.add("m", models.identity(), config=config)

    with pytest.raises((InvalidInput, Unsupported), match=words):
        load()


def test_a_configuration_that_leaves_an_input_out_is_refused(repository, models, load):
    repository.add(
        "m",
        models.two_inputs(),
        config='max_batch_size: 4 input { name: "a" data_type: TYPE_FP32 dims: 3 }',
    )

    with pytest.raises(
        InvalidInput, match=r"needs the inputs \['b'\], which config.pbtxt leaves out"
    ):
        load()


def test_a_batch_axis_that_the_graph_has_fixed_is_refused(repository, models, load):
    repository.add("m", models.identity(shape=(1, 2)), config="max_batch_size: 4")

    with pytest.raises(
        InvalidInput, match=r"'x' as FP32 \[-1, 2\], but the graph has FP32 \[1, 2\]"
    ):
        load()


def test_the_model_file_may_have_another_name(repository, models, load):
    folder = repository.add("m", models.identity(), config='default_model_filename: "net.onnx"')
    with pytest.raises(NotFound, match=r"version 1 of 'm' has no file .*net\.onnx"):
        load()

    (folder / "model.onnx").rename(folder / "net.onnx")

    assert load().spec.inputs == (X,)


def test_the_cost_is_counted_from_the_graph_and_told_in_the_configuration(repository, models, load):
    repository.add("m", models.dense(3, 5))

    loaded = load()

    # 3 * 5 products; as many weights of 4 bytes; 3 numbers in, 5 out
    assert replace(loaded.cost, layers=()) == ModelCost(15, 15, 60, 12, 20)
    parameters = {key: value.string_value for key, value in loaded.config.parameters.items()}
    assert ModelCost.from_parameters(parameters) == loaded.cost


def test_a_cost_that_the_graph_leaves_open_is_not_told(repository, models, load, caplog):
    repository.add("m", models.identity(shape=("batch", "length")))

    with caplog.at_level("INFO"):
        assert load().cost is None
    assert "axis 1 of input 'x' is free (length)" in caplog.text


def test_a_cost_that_cannot_be_counted_does_not_keep_a_model_from_serving(
    repository, models, load, monkeypatch
):
    repository.add("m", models.identity())

    def fail(*_arguments, **_options):
        raise RuntimeError("onnx cannot infer the shapes of so large a model")

    monkeypatch.setattr("ridgeline.graph.cost_of", fail)

    assert load().cost is None


def _published(repository, models) -> None:
    spec = ModelSpec("m", 4, (X,), (Y,))
    publish(
        {"model.onnx": models.identity()},
        config=config_of(spec),
        card=ModelCard(cost=ModelCost(1, 2, 3, 4, 5)),
        labels={"y": ["no", "yes"]},
        root=repository.root,
    )


def test_a_published_model_brings_its_cost_and_labels(repository, models, load):
    _published(repository, models)

    loaded = load()

    assert loaded.cost == ModelCost(1, 2, 3, 4, 5)
    assert loaded.labels == {"y": ("no", "yes")}
    assert spec_of(loaded.config) == loaded.spec == ModelSpec("m", 4, (X,), (Y,))


def test_a_published_file_that_has_changed_is_not_served(repository, models, load):
    _published(repository, models)
    with (repository.root / "m" / "1" / "model.onnx").open("ab") as stream:
        stream.write(b" ")

    with pytest.raises(CorruptData, match=r"model\.onnx has the SHA-256"):
        load()


def test_texts_are_warmed_up_with_empty_ones(repository, models, load, caplog):
    repository.add("m", models.identity("BYTES"))

    answer = load().engine.run({"x": np.array([[b"a", b"b"]], dtype=np.object_)}, outputs=["y"])

    assert answer[0].tolist() == [["a", "b"]]
    assert "warmed up" not in caplog.text
