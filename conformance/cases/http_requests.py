"""What the cases of inference over HTTP have in common."""

import json
from typing import Any

import numpy as np

from conformance.answer import ANY, Expected
from conformance.samples import json_input

BAD = Expected(("400",), {"error": ANY})
ONES = np.ones((1, 16), dtype=np.int32)
ROW = np.array([[1.5, -2.0]], dtype=np.float32)


def answered(*outputs: Any, **fields: Any) -> Expected:
    """Success, with outputs that match, and further fields of the response."""
    return Expected(("200",), {"outputs": list(outputs), **fields})


def simple_input(name: str, rows: int = 1) -> dict[str, Any]:
    """An input of the model `simple`, all ones."""
    return json_input(np.ones((rows, 16), np.int32), datatype="INT32", name=name)


def dumped(body: Any) -> bytes:
    """JSON as it is sent."""
    return json.dumps(body).encode()
