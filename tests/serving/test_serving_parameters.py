"""Parameters of requests: which are admitted, which the server acts on."""

import pytest

from ridgeline.errors import InvalidInput
from serving.protocol.parameters import checked_parameters, schedule_parameters
from serving.request import InferRequest


def test_the_parameters_of_the_model_are_all_but_those_of_the_server():
    parameters = {"priority": 1, "timeout": 5, "triton_x": True, "colour": "blue", "size": -7}

    request = InferRequest("m", {}, parameters=parameters)

    assert request.custom_parameters == {"colour": "blue", "size": -7}


@pytest.mark.parametrize("value", [None, [], {}, b"x"])
def test_a_parameter_of_another_kind_is_refused(value):
    with pytest.raises(InvalidInput, match="parameter 'a' has invalid type"):
        checked_parameters({"a": value})


def test_reserved_names_are_refused_but_for_the_allowed_ones():
    assert checked_parameters({"triton_a": 1}, allowed=("triton_a",)) == {"triton_a": 1}
    with pytest.raises(InvalidInput, match="reserved for Triton usage, received 'triton_a'"):
        checked_parameters({"triton_a": 1})


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, {}),
        ({"priority": 0, "timeout": 0}, {"priority": 0, "timeout_ns": 0}),
        ({"priority": 2, "of the user": "x"}, {"priority": 2}),
        ({"timeout": 1_500}, {"timeout_ns": 1_500_000}),  # microseconds
        ({"priority": 2**63 - 1}, {"priority": 2**63 - 1}),
        ({"priority": None}, {}),
    ],
)
def test_priority_and_timeout_are_read_from_the_parameters(parameters, found):
    assert schedule_parameters(parameters) == found


@pytest.mark.parametrize("value", [-1, 2**63, 1.0, "1", True, [], {}])
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_a_priority_or_timeout_that_is_no_whole_number_is_refused(name, value):
    with pytest.raises(InvalidInput, match=f"the parameter '{name}' must be a whole number"):
        schedule_parameters({name: value})
