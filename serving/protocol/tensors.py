"""Tensors as bytes and as lists of numbers, to numpy arrays and back. Both protocols use it.

The raw form is the one of the binary tensor data extension: row-major, little-endian, no padding;
BOOL one byte; BYTES four bytes of little-endian length before each element.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ridgeline.datatypes import Datatype, datatype, datatype_of_numpy
from ridgeline.errors import InvalidInput

_LENGTH_BYTES = 4
_MAX_AXES = 64  # numpy's limit

# FP16 and BF16 have no typed field and no JSON form: as in Triton, they travel as raw bytes only.
_BINARY_ONLY = ("FP16", "BF16")
# Which numpy kinds of numbers a JSON list or a typed field may hold for each kind of array.
_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


def checked_shape(shape: Iterable[int], *, name: str) -> tuple[int, ...]:
    """The shape as a client wrote it. Raises InvalidInput for a negative size or too many axes."""
    sizes = tuple(shape)
    if len(sizes) > _MAX_AXES:
        raise InvalidInput(
            f"input {name!r} has {len(sizes)} axes, at most {_MAX_AXES} are possible"
        )
    if any(type(size) is not int or size < 0 for size in sizes):
        raise InvalidInput(
            f"sizes of input {name!r} must be whole numbers, not negative, received {list(sizes)}"
        )
    return sizes


def from_raw(
    data: bytes | memoryview, *, datatype_name: str, shape: Sequence[int], name: str
) -> np.ndarray:
    """An array over raw bytes, without a copy (but for BOOL and BYTES), read-only.

    Raises InvalidInput where the size is not the one that datatype and shape call for.
    """
    kind = datatype(datatype_name)
    count = math.prod(shape)
    if kind.name == "BYTES":
        return _objects(split_bytes(data, count=count, name=name), shape)
    if len(data) != count * kind.item_bytes:
        raise InvalidInput(
            f"unexpected size of input {name!r}: {kind.name} {list(shape)} takes "
            f"{count * kind.item_bytes} bytes, received {len(data)}"
        )
    if kind.name == "BOOL":
        flags: np.ndarray = np.frombuffer(data, dtype=np.uint8) != 0
        return flags.reshape(shape)
    return np.frombuffer(data, dtype=kind.numpy).reshape(shape)


def split_bytes(data: bytes | memoryview, *, count: int, name: str) -> list[bytes]:
    """The elements of a raw BYTES tensor. Raises InvalidInput where they are not `count`, whole."""
    elements: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        start = position + _LENGTH_BYTES
        length = int.from_bytes(data[position:start], "little")
        position = start + length
        if position > end:
            raise InvalidInput(
                f"input {name!r} is cut off: element {len(elements)} of BYTES announces {length} "
                f"bytes, {max(0, end - start)} are left"
            )
        elements.append(bytes(data[start:position]))
    if len(elements) != count:
        raise InvalidInput(
            f"expected {count} elements in the BYTES input {name!r}, received {len(elements)}"
        )
    return elements


def to_raw(array: np.ndarray) -> bytes:
    """The raw bytes of an array."""
    if array.dtype.kind in "OSU":
        elements = [_as_bytes(element) for element in array.ravel()]
        return b"".join(
            part
            for data in elements
            for part in (len(data).to_bytes(_LENGTH_BYTES, "little"), data)
        )
    return array.tobytes()


def from_numbers(data: Any, *, datatype_name: str, shape: Sequence[int], name: str) -> np.ndarray:
    """An array from a list, flat or nested, of numbers, booleans or texts.

    Raises InvalidInput for elements of another kind, out of range, ragged, or too few or many.
    """
    kind = datatype(datatype_name)
    if kind.name in _BINARY_ONLY:
        raise InvalidInput(f"{kind.name} data of input {name!r} can only be sent as binary data")
    try:
        values = np.asarray(data, dtype=np.object_ if kind.name == "BYTES" else None)
    except ValueError as error:
        raise InvalidInput(f"data of input {name!r} is ragged: {error}") from error
    if values.size != math.prod(shape):
        raise InvalidInput(
            f"input {name!r} of shape {list(shape)} takes {math.prod(shape)} elements, "
            f"received {values.size}"
        )
    if kind.name == "BYTES":
        return _objects([_text(element, name=name) for element in values.ravel()], shape)
    if values.size and values.dtype.kind not in _KINDS.get(kind.numpy.kind, ""):
        raise _wrong_element(data, kind=kind, name=name)
    try:
        # From `data`, not from `values`: numpy has made floats of large whole numbers by now.
        with np.errstate(over="ignore"):  # checked below
            exact = np.array(data, dtype=kind.numpy)
    except (OverflowError, ValueError, TypeError):
        raise _wrong_element(data, kind=kind, name=name) from None
    if kind.numpy.kind == "f" and not np.array_equal(np.isfinite(exact), np.isfinite(values)):
        raise _wrong_element(data, kind=kind, name=name)
    return exact.reshape(shape)


def to_numbers(array: np.ndarray, *, name: str) -> Any:
    """A flat list for JSON. Raises InvalidInput for what JSON cannot carry: NaN, raw bytes."""
    if array.dtype.kind in "OSU":
        try:
            return [_as_bytes(element).decode("utf-8") for element in array.ravel()]
        except UnicodeDecodeError:
            raise InvalidInput(
                f"output {name!r} holds bytes that are not UTF-8; ask for it as binary data"
            ) from None
    if datatype_of_numpy(array.dtype).name in _BINARY_ONLY:
        raise InvalidInput(f"output {name!r} cannot be sent as JSON; ask for it as binary data")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInput(
            f"output {name!r} holds NaN or infinity, which JSON cannot carry; "
            "ask for it as binary data"
        )
    return array.ravel()


def _wrong_element(data: Any, *, kind: Datatype, name: str) -> InvalidInput:
    return InvalidInput(
        f"data of input {name!r} does not fit {kind.name}, received {str(data)[:60]}"
    )


def _objects(elements: Sequence[bytes], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array.reshape(shape)


def _text(element: object, *, name: str) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode("utf-8")
    raise InvalidInput(f"elements of the BYTES input {name!r} must be texts, received {element!r}")


def _as_bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode("utf-8")
