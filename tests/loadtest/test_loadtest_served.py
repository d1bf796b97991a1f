import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from loadtest.served import ServedModel, served_model
from ridgeline.cost import ModelCost
from ridgeline.errors import InvalidInput
from ridgeline.model import TensorSpec

Tensor = service_pb2.ModelMetadataResponse.TensorMetadata


def metadata(*, versions=("1",), shape=(-1, 4), datatype="FP32"):
    return service_pb2.ModelMetadataResponse(
        name="net",
        versions=versions,
        inputs=[Tensor(name="x", datatype=datatype, shape=shape)],
        outputs=[Tensor(name="y", datatype="FP32", shape=shape)],
    )


def model(*shape, max_batch_size=None):
    tensor = TensorSpec("x", "FP32", shape)
    return ServedModel("net", "1", (tensor,), (tensor,), max_batch_size=max_batch_size)


def test_the_cost_is_read_from_the_parameters_of_the_configuration():
    cost = ModelCost(1, 2, 3, 4, 5)
    config = model_config_pb2.ModelConfig(max_batch_size=32)
    for name, text in cost.to_parameters().items():
        config.parameters[name].string_value = text
    served = served_model(metadata(), version="", config=config)
    assert served.cost == cost
    assert served.max_batch_size == 32


def test_a_server_without_configurations_leaves_cost_and_batch_size_open():
    served = served_model(metadata(), version="", config=None)
    assert (served.cost, served.max_batch_size) == (None, None)


@pytest.mark.parametrize(
    ("versions", "wanted", "expected"),
    [(("2", "10", "9"), "", "10"), (("2", "10"), "2", "2"), ((), "", ""), (("a", "b"), "", "b")],
)
def test_the_version_is_the_one_asked_for_or_the_newest_number(versions, wanted, expected):
    assert (
        served_model(metadata(versions=versions), version=wanted, config=None).version == expected
    )


def test_metadata_without_inputs_or_with_unknown_datatypes_is_refused():
    with pytest.raises(InvalidInput, match="names no inputs or no outputs"):
        served_model(service_pb2.ModelMetadataResponse(name="net"), version="", config=None)
    with pytest.raises(InvalidInput, match="FP12"):
        served_model(metadata(datatype="FP12"), version="", config=None)


@pytest.mark.parametrize(
    ("shape", "batch_size", "expected"),
    [
        ((-1, 4), 3, (3, 4)),
        ((-1, -1, 8), 2, (2, 1, 8)),
        ((1, 4), 1, (1, 4)),
        ((5, -1), 5, (5, 1)),
        ((), 1, ()),
    ],
)
def test_the_first_free_axis_is_the_batch_and_other_free_axes_are_one(shape, batch_size, expected):
    served = model(*shape)
    assert served.input_shape(served.inputs[0], batch_size=batch_size) == expected


def test_a_fixed_shape_cannot_hold_another_batch():
    with pytest.raises(InvalidInput, match=r"fixed shape \[1, 4\], which cannot hold a batch of 2"):
        model(1, 4).check_batch_size(2)


def test_a_batch_beyond_what_the_model_takes_is_refused():
    model(-1, 4, max_batch_size=8).check_batch_size(8)
    with pytest.raises(InvalidInput, match="at most 8 rows, received a batch size of 9"):
        model(-1, 4, max_batch_size=8).check_batch_size(9)
    with pytest.raises(InvalidInput, match="at least 1, received 0"):
        model(-1, 4).check_batch_size(0)


def test_a_model_without_a_batch_axis_of_its_own_has_no_largest_batch():
    model(-1, 4, max_batch_size=0).check_batch_size(1000)


@pytest.mark.parametrize(
    ("groups", "told", "expected"),
    [
        ("", "", "cpu"),
        ("instance_group { kind: KIND_CPU count: 2 }", "", "cpu"),
        ("instance_group { kind: KIND_GPU }", "", "gpu:0"),
        (
            "instance_group { kind: KIND_CPU } instance_group { kind: KIND_GPU gpus: 3 }",
            "",
            "gpu:3",
        ),
        ("instance_group { kind: KIND_GPU }", "cpu", "cpu"),
        ("", "cuda", "gpu:0"),
        ("", "tensorrt", "gpu:0"),
    ],
)
def test_a_model_runs_where_its_server_says_else_where_its_instances_are(groups, told, expected):
    config = text_format.Parse(groups, model_config_pb2.ModelConfig())
    if told:
        config.parameters["ridgeline_execution_provider"].string_value = told
    served = served_model(metadata(), version="", config=config)
    assert served.device == expected
    assert list(config.parameters) == (["ridgeline_execution_provider"] if told else [])
