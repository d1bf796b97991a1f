"""JSON objects in HTTP bodies: read, their fields checked, and numbers written.

Read strictly (RFC 8259), or as Triton does: `any_number` admits NaN, Infinity and -Infinity, and a
byte order mark.
"""

import codecs
import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from ridgeline.errors import InvalidInput, Malformed

_KINDS = {
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a whole number",
}
_MOST_INT = 2**63
# What makes the slower reader worth a try: the only texts that it takes and the other does not.
_NO_JSON = (b"NaN", b"Infinity", codecs.BOM_UTF8)


def json_object(data: bytes, *, any_number: bool = False) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidInput."""
    try:
        table = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if not any_number or not any(text in data for text in _NO_JSON):
            raise _unreadable(data, error) from error
        table = _loosely_read(data)
    if not isinstance(table, dict):
        raise Malformed(f"the request must be a JSON object, received a {type(table).__name__}")
    return table


def required(table: Mapping[str, Any], key: str, *, kind: type, of: str) -> Any:
    """A field of the table `of` that name, of that kind exactly. Raises InvalidInput."""
    if key not in table:
        received = f"only {', '.join(table)}" if table else "none"
        raise Malformed(f"{of} needs the field {key!r}, received {received}")
    value = table[key]
    if type(value) is not kind:
        raise Malformed(
            f"the field {key!r} of {of} must be {_KINDS[kind]}, received {reprlib.repr(value)}"
        )
    return value


def optional(table: Mapping[str, Any], key: str, *, kind: type, default: Any, of: str) -> Any:
    """The same, or the default where there is no such field."""
    return required(table, key, kind=kind, of=of) if key in table else default


def any_numbers(values: Any) -> Any:
    """Values for orjson, which would write NaN and infinity as null: floats, in an array or one."""
    if not isinstance(values, (np.ndarray, np.floating)) or np.isfinite(values).all():
        return values
    return orjson.Fragment(json.dumps(values.tolist()))


def _loosely_read(data: bytes) -> Any:
    """As Python reads JSON; lone surrogates are refused here, too, since they are no text."""
    try:
        text = data.decode("utf-8-sig")
        table = json.loads(text, parse_int=_whole, parse_float=_finite)
        if "\\u" in text:
            json.dumps(table, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _unreadable(data, error) from error
    return table


def _whole(text: str) -> int | float:
    """As orjson: what 64 bits cannot hold is a fraction."""
    number = int(text)
    return number if -_MOST_INT <= number < 2 * _MOST_INT else _finite(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _unreadable(data: bytes, error: Exception) -> InvalidInput:
    whole, zero, _ = data.partition(b"\0")
    if zero and _is_json(whole):
        return InvalidInput(
            f"the request is not valid JSON: it ends after {len(whole)} bytes, and others follow; "
            "are they binary data, and does Inference-Header-Content-Length say where they begin?"
        )
    return Malformed(f"the request is not valid JSON: {error}")


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True
