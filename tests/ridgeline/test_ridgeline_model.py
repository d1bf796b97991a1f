"""Contracts, datatypes and configurations."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.cost import ModelCost
from ridgeline.datatypes import (
    DATATYPES,
    datatype,
    datatype_of_config,
    datatype_of_numpy,
    datatype_of_onnx,
)
from ridgeline.errors import InvalidInput
from ridgeline.model import ModelSpec, TensorSpec, config_of, format_config, parse_config, spec_of

names = st.text("abcxyz_0123", min_size=1, max_size=8)
tensors = st.builds(
    TensorSpec,
    name=names,
    datatype=st.sampled_from(sorted(DATATYPES)),
    shape=st.lists(st.integers(-1, 300), max_size=4).map(tuple),
)
tensor_lists = st.lists(tensors, min_size=1, max_size=3, unique_by=lambda t: t.name).map(tuple)
specs = st.builds(
    ModelSpec,
    name=names,
    max_batch_size=st.integers(0, 512),
    inputs=tensor_lists,
    outputs=tensor_lists,
)


@settings(deadline=None)  # the machine may be busy
@given(specs)
def test_a_contract_survives_its_configuration_file(spec):
    text = format_config(config_of(spec))
    assert spec_of(parse_config(text, source="config.pbtxt")) == spec


def test_a_configuration_batches_dynamically_only_where_the_model_does():
    tensor = TensorSpec("x", "FP32", (2,))
    batching = config_of(ModelSpec("m", 8, (tensor,), (tensor,)))
    single = config_of(ModelSpec("m", 0, (tensor,), (tensor,)))
    assert batching.HasField("dynamic_batching")
    assert not single.HasField("dynamic_batching")


def test_a_malformed_configuration_is_told_with_its_line():
    with pytest.raises(InvalidInput, match=r"here is not a valid model configuration: 2:1"):
        parse_config('name: "x"\nnonsense: 3', source="here")


@pytest.mark.parametrize("datatype", ["99", "TYPE_INVALID"])
def test_a_data_type_that_the_protocol_does_not_have_is_told(datatype):
    text = f'name: "m" input {{ name: "x" data_type: {datatype} }} output {{ name: "y" }}'
    with pytest.raises(InvalidInput, match=f"received {datatype}; known are TYPE_BOOL"):
        spec_of(parse_config(text, source="here"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": ""}, "must be that of a folder"),
        ({"name": "a/b"}, "must be that of a folder"),
        ({"name": ".hidden"}, "must be that of a folder"),
        ({"max_batch_size": -1}, "must not be negative, received -1"),
        ({"inputs": ()}, "needs at least one input"),
        ({"outputs": (TensorSpec("y", "FP32", ()),) * 2}, "must have different names"),
    ],
)
def test_a_contract_refuses_nonsense(wrong, told):
    tensor = TensorSpec("x", "FP32", (2,))
    right = {"name": "m", "max_batch_size": 1, "inputs": (tensor,), "outputs": (tensor,)}
    with pytest.raises(InvalidInput, match=told):
        ModelSpec(**{**right, **wrong})


def test_a_tensor_refuses_nonsense():
    with pytest.raises(InvalidInput, match="needs a name"):
        TensorSpec("", "FP32", ())
    with pytest.raises(InvalidInput, match="received FLOAT"):
        TensorSpec("x", "FLOAT", ())
    with pytest.raises(InvalidInput, match="at least -1"):
        TensorSpec("x", "FP32", (-2,))


def test_clients_see_the_batch_axis_in_front():
    tensor = TensorSpec("x", "FP32", (3, 4))
    assert ModelSpec("m", 8, (tensor,), (tensor,)).full_shape(tensor) == (-1, 3, 4)
    assert ModelSpec("m", 0, (tensor,), (tensor,)).full_shape(tensor) == (3, 4)


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_a_datatype_is_found_under_each_of_its_names(name):
    row = datatype(name)
    assert datatype_of_config(row.config) is row
    assert datatype_of_onnx(row.onnx) is row
    assert datatype_of_numpy(row.numpy) is row


def test_the_sizes_of_datatypes_are_those_of_the_wire():
    sizes = {name: row.item_bytes for name, row in DATATYPES.items()}
    assert sizes == {
        **{"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8},
        **{"INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8},
        **{"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": 0},
    }
    assert datatype("BF16").numpy == ml_dtypes.bfloat16
    assert datatype_of_numpy(np.dtype("U5")).name == "BYTES"


def test_an_unknown_datatype_is_told_with_the_known_ones():
    with pytest.raises(InvalidInput, match=r"received complex64; known are bool"):
        datatype_of_numpy(np.dtype("complex64"))


def test_cost_grows_with_the_batch_except_for_the_weights():
    cost = ModelCost(416_520, 61_706, 246_824, 4_096, 40)
    assert cost.flops_per_sample == 833_040
    assert cost.flops(batch_size=8) == 6_664_320
    assert cost.bytes_moved(batch_size=1) == 246_824 + 4_136
    assert cost.bytes_moved(batch_size=8) == 246_824 + 8 * 4_136


def test_cost_travels_as_parameters_of_a_configuration():
    cost = ModelCost(1, 2, 3, 4, 5)
    assert ModelCost.from_parameters({**cost.to_parameters(), "other": "x"}) == cost
    assert ModelCost.from_parameters({"other": "x"}) is None
    with pytest.raises(InvalidInput, match="malformed cost"):
        ModelCost.from_parameters({**cost.to_parameters(), "ridgeline_parameters": "many"})


def test_cost_refuses_negative_counts():
    with pytest.raises(InvalidInput, match="weight_bytes must not be negative, received -3"):
        ModelCost(1, 2, -3, 4, 5)
