"""Tensors as bytes and as lists of numbers, to numpy arrays and back. Both protocols use it.

The raw form is the one of the binary tensor data extension: row-major, little-endian, no padding;
BOOL one byte; BYTES four bytes of little-endian length before each element.
"""

import contextlib
import itertools
import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ridgeline.datatypes import Datatype, datatype, datatype_of_numpy
from ridgeline.errors import InvalidInput, Malformed, NotFound

_LENGTH_BYTES = 4
_MAX_AXES = 64  # numpy's limit
_MAX_ELEMENTS = 2**40  # more than any request holds, less than what numpy fails to count

# FP16 and BF16 have no typed field and no JSON form: as in Triton, they travel as raw bytes only.
_BINARY_ONLY = ("FP16", "BF16")
# What a JSON list or a typed field may hold for each kind of numpy array; True is no number here.
_ELEMENT_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str, bytes},
}


@contextlib.contextmanager
def naming_model(model_name: str) -> Iterator[None]:
    """Put the model's name in front of what is said of its tensors."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        raise type(error)(f"model {model_name!r}: {error}") from error


def checked_shape(shape: Iterable[int], *, name: str) -> tuple[int, ...]:
    """The shape as a client wrote it.

    Raises InvalidInput for a negative size, too many axes, or more elements than can be.
    """
    sizes = tuple(shape)
    if len(sizes) > _MAX_AXES:
        raise InvalidInput(
            f"input {name!r} has {len(sizes)} axes, at most {_MAX_AXES} are possible"
        )
    if any(type(size) is not int or size < 0 for size in sizes):
        raise Malformed(
            f"sizes of input {name!r} must be whole numbers, not negative, "
            f"received {reprlib.repr(list(sizes))}"
        )
    if math.prod(size or 1 for size in sizes) > _MAX_ELEMENTS:  # numpy multiplies them so, too
        raise InvalidInput(
            f"input {name!r} of shape {list(sizes)} is too large: "
            f"at most {_MAX_ELEMENTS} elements are possible"
        )
    return sizes


def known_datatype(datatype_name: str, *, name: str) -> Datatype:
    """The datatype that a client named for a tensor. Raises InvalidInput, naming the tensor."""
    try:
        return datatype(datatype_name)
    except InvalidInput as error:
        raise InvalidInput(f"input {name!r}: {error}") from None


def from_raw(
    data: bytes | memoryview, *, datatype_name: str, shape: Sequence[int], name: str
) -> np.ndarray:
    """An array over raw bytes; a copy of them only where they are BOOL, BYTES or not aligned.

    Raises InvalidInput where the size is not the one that datatype and shape call for.
    """
    kind = known_datatype(datatype_name, name=name)
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
    array: np.ndarray = np.frombuffer(data, dtype=kind.numpy).reshape(shape)
    # Behind a JSON header of any length numbers may start anywhere; kernels need them in place.
    return array if array.flags.aligned else array.copy()


def split_bytes(data: bytes | memoryview, *, count: int, name: str) -> list[bytes]:
    """The elements of a raw BYTES tensor. Raises InvalidInput where they are not `count`, whole."""
    elements: list[bytes] = []
    position, end = 0, len(data)
    while position < end and len(elements) < count:
        start = position + _LENGTH_BYTES
        length = int.from_bytes(data[position:start], "little")
        position = start + length
        if position > end:
            raise InvalidInput(
                f"input {name!r} is cut off: element {len(elements)} of BYTES announces {length} "
                f"bytes, {max(0, end - start)} are left"
            )
        elements.append(bytes(data[start:position]))
    if len(elements) != count or position != end:
        received = (
            f"{len(elements)}, then {end - position} bytes" if position < end else len(elements)
        )
        raise InvalidInput(
            f"expected {count} elements in the BYTES input {name!r}, received {received}"
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
    kind = known_datatype(datatype_name, name=name)
    if kind.name in _BINARY_ONLY:
        raise InvalidInput(f"{kind.name} data of input {name!r} can only be sent as binary data")
    elements = flattened(data, name=name)
    if len(elements) != math.prod(shape):
        raise Malformed(
            f"input {name!r} of shape {list(shape)} takes {math.prod(shape)} elements, "
            f"received {len(elements)}"
        )
    fitting = _ELEMENT_TYPES[kind.numpy.kind]
    if not fitting.issuperset(map(type, elements)):
        wrong = next(element for element in elements if type(element) not in fitting)
        raise _wrong_element(wrong, kind=kind, name=name)
    if kind.name == "BYTES":
        return _objects([_as_bytes(element) for element in elements], shape)
    return _numbers(elements, kind=kind, name=name).reshape(shape)


def to_numbers(array: np.ndarray, *, name: str, any_number: bool = False) -> Any:
    """A flat list for JSON. Raises InvalidInput for what JSON cannot carry: NaN, raw bytes.

    With `any_number` NaN and infinity may be in it.
    """
    if array.dtype.kind in "OSU":
        try:
            return [_as_bytes(element).decode("utf-8") for element in array.ravel()]
        except UnicodeDecodeError:
            raise InvalidInput(
                f"output {name!r} holds bytes that are not UTF-8; ask for it as binary data"
            ) from None
    if datatype_of_numpy(array.dtype).name in _BINARY_ONLY:
        raise InvalidInput(f"output {name!r} cannot be sent as JSON; ask for it as binary data")
    if array.dtype.kind == "f" and not any_number and not np.isfinite(array).all():
        raise InvalidInput(
            f"output {name!r} holds NaN or infinity, which JSON cannot carry; "
            "ask for it as binary data"
        )
    return array.ravel()


def flattened(data: list[Any], *, name: str) -> list[Any]:
    """The elements of nested lists, row by row. Raises InvalidInput where they are ragged."""
    while list in (types := set(map(type, data))):
        if len(types) > 1 or len(set(map(len, data))) > 1:
            raise InvalidInput(f"data of input {name!r} is ragged: its lists differ in length")
        data = list(itertools.chain.from_iterable(data))
    return data


def _numbers(elements: list[Any], *, kind: Datatype, name: str) -> np.ndarray:
    """A flat array of Python numbers; raises InvalidInput for one that the datatype cannot hold."""
    if kind.numpy.kind in "iu":
        limits = np.iinfo(kind.numpy)
        for extreme in (min(elements, default=0), max(elements, default=0)):
            if not limits.min <= extreme <= limits.max:
                raise _wrong_element(extreme, kind=kind, name=name)
    with np.errstate(over="ignore"):  # checked below
        array = np.array(elements, dtype=kind.numpy)
    if kind.numpy.kind == "f":
        for position in np.flatnonzero(np.isinf(array)):
            if not math.isinf(elements[position]):
                raise _wrong_element(elements[position], kind=kind, name=name)
    return array


def _wrong_element(element: object, *, kind: Datatype, name: str) -> InvalidInput:
    fault = InvalidInput if _is_readable(element, kind=kind) else Malformed
    return fault(
        f"data of input {name!r} does not fit {kind.name}, received {reprlib.repr(element)}"
    )


def _is_readable(element: object, *, kind: Datatype) -> bool:
    """Whether it is a number of the right kind, only too large."""
    if type(element) is int and kind.numpy.kind in "iu":
        limits = np.iinfo(np.int64 if kind.numpy.kind == "i" else np.uint64)
        return bool(limits.min <= element <= limits.max)
    return type(element) in (int, float) and kind.numpy.kind == "f"


def _objects(elements: Sequence[bytes], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array.reshape(shape)


def _as_bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode("utf-8")
