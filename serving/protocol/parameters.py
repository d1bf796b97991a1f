"""Parameters of requests: which the server itself understands, and which are the model's."""

import reprlib
from collections.abc import Mapping
from typing import Any, TypedDict

from ridgeline.errors import InvalidInput, Malformed
from serving.request import Parameter

SCHEDULE_PARAMETERS = frozenset(("priority", "timeout"))
# The one of Triton's own names that a client may give, over gRPC: about the end of a stream.
EMPTY_FINAL = "triton_enable_empty_final_response"
_RESERVED_PREFIX = "triton_"
_KINDS = (bool, int, float, str)
_MOST = 2**63
_NS_PER_US = 1000
_MAX_NAME_CHARACTERS = 100  # in an error text


def checked_parameters(
    parameters: Mapping[str, Any], *, allowed: tuple[str, ...] = ()
) -> Mapping[str, Parameter]:
    """The parameters of a request, each of a kind that a parameter may have.

    Raises InvalidInput for another kind, and for names that are reserved, but for `allowed` ones.
    """
    for name, value in parameters.items():
        if type(value) not in _KINDS:
            raise InvalidInput(
                f"parameter {name[:_MAX_NAME_CHARACTERS]!r} has invalid type. It should be either "
                f"'int', 'bool', 'double' or 'string', received {reprlib.repr(value)}"
            )
        if name.startswith(_RESERVED_PREFIX) and name not in allowed:
            raise InvalidInput(
                f"parameter keys starting with {_RESERVED_PREFIX!r} are reserved for Triton usage, "
                f"received {name[:_MAX_NAME_CHARACTERS]!r}"
            )
    return parameters


class Schedule(TypedDict, total=False):
    """What the parameters of the schedule policy say, by the names that a request has for it."""

    priority: int
    timeout_ns: int


def schedule_parameters(parameters: Mapping[str, Any]) -> Schedule:
    """`priority` and `timeout_ns` of a request, from its parameters of the schedule policy.

    As in Triton, `priority` is 0 for the default and 1 for the highest, `timeout` is microseconds.
    Raises Malformed where one of them is no whole number, or negative.
    """
    found: Schedule = {}
    if (priority := _whole_number(parameters, "priority")) is not None:
        found["priority"] = priority
    if (timeout_us := _whole_number(parameters, "timeout")) is not None:
        found["timeout_ns"] = timeout_us * _NS_PER_US
    return found


def _whole_number(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < _MOST:
        raise Malformed(
            f"the parameter {name!r} must be a whole number, not negative, "
            f"received {reprlib.repr(value)}"
        )
    return value
