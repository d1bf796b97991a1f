"""What the tensors of a request mean, told a second time: slow, plain, without code of ours.

The fuzzer holds the codecs to it. Nothing raised: what is accepted must be this, to the bit. Wrong:
it must be refused. Unclear: these few lines cannot tell.
"""

import json
import math
import struct
import zlib
from dataclasses import dataclass

INTEGERS = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
FLOATS = {"FP32": "f", "FP64": "d"}
ITEM_BYTES = {
    "BOOL": 1, "FP16": 2, "BF16": 2,
    **{name: struct.calcsize(f"<{code}") for name, code in (INTEGERS | FLOATS).items()},
}  # fmt: skip
DATATYPES = (*ITEM_BYTES, "BYTES")
FIELDS = {
    "BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}  # fmt: skip
_SIZE, _REGION = "binary_data_size", "shared_memory_region"
_MOST_AXES, _MOST_ELEMENTS, _MOST_DIGITS = 64, 2**40, 18


class Wrong(Exception):
    """It is no request."""


class Unclear(Exception):
    """It may be one."""


@dataclass(frozen=True)
class Tensor:
    """What an input must become; `raw` as the binary extension has it."""

    datatype: str
    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True)
class Request:
    """The inputs by name; where it is plain there is nothing else for which to refuse it."""

    inputs: dict[str, Tensor]
    is_plain: bool


def _need(right):
    if not right:
        raise Wrong


def of_raw(data, *, datatype, shape):
    """The tensor in raw bytes."""
    _need(datatype in DATATYPES)
    count = math.prod(shape)
    if datatype == "BYTES":
        rest, found = data, 0
        while rest and found < count:
            size = int.from_bytes(rest[:4], "little")
            _need(len(rest) >= 4 + size)
            rest, found = rest[4 + size :], found + 1
        _need(found == count and not rest)
        return Tensor(datatype, shape, data)
    _need(len(data) == count * ITEM_BYTES[datatype])
    if datatype == "BOOL":
        data = bytes(byte != 0 for byte in data)
    return Tensor(datatype, shape, data)


def of_elements(elements, *, datatype, shape):
    """The tensor of a flat list."""
    _need(datatype in FIELDS and len(elements) == math.prod(shape))
    return Tensor(datatype, shape, b"".join(_packed(each, datatype) for each in elements))


def _packed(element, datatype):
    kind = type(element)
    if datatype == "BYTES":
        _need(kind in (str, bytes))
        data = element.encode() if kind is str else element
        return struct.pack("<I", len(data)) + data
    if datatype == "BOOL":
        _need(kind is bool)
        return bytes([element])
    _need(kind is int or (kind is float and datatype in FLOATS))
    try:
        return struct.pack(f"<{(INTEGERS | FLOATS)[datatype]}", element)
    except (struct.error, OverflowError):
        raise Wrong from None


def shape_of(sizes):
    """A shape as a client may write it."""
    _need(type(sizes) is list and all(type(size) is int and size >= 0 for size in sizes))
    _need(len(sizes) <= _MOST_AXES and math.prod(size or 1 for size in sizes) <= _MOST_ELEMENTS)
    return tuple(sizes)


# --- HTTP -----------------------------------------------------------------------------------------


def http_request(body, header_length):
    """The request in a body; `header_length` is the header field, None where there is none."""
    length = len(body)
    if header_length is not None:
        _need(header_length.isdecimal() and len(header_length) <= _MOST_DIGITS)
        _need(int(header_length) <= len(body))
        length = int(header_length)
    table = _table(body[:length])
    _need(type(table) is dict and type(table.get("inputs")) is list)
    inputs, binary = {}, body[length:]
    is_plain = set(table) == {"inputs"}
    for given in table["inputs"]:
        _need(type(given) is dict and type(given.get("name")) is str)
        _need(given["name"] not in inputs)
        tensor, size = _http_tensor(given, binary)
        inputs[given["name"]], binary = tensor, binary[size:]
        is_plain &= set(given) <= {"name", "datatype", "shape", "data", "parameters"}
        is_plain &= set(given.get("parameters", ())) <= {_SIZE}
    _need(not binary)
    return Request(inputs, is_plain)


def _http_tensor(given, binary):
    datatype, shape = given.get("datatype"), shape_of(given.get("shape"))
    _need(type(datatype) is str and datatype in DATATYPES)
    parameters = given.get("parameters", {})
    _need(type(parameters) is dict)
    if _REGION in parameters:
        raise Unclear
    if _SIZE not in parameters:
        _need(type(given.get("data")) is list)
        return of_elements(_flat(given["data"]), datatype=datatype, shape=shape), 0
    size = parameters[_SIZE]
    _need("data" not in given and type(size) is int and 0 <= size <= len(binary))
    return of_raw(binary[:size], datatype=datatype, shape=shape), size


def _flat(data):
    while any(type(each) is list for each in data):
        _need(all(type(each) is list and len(each) == len(data[0]) for each in data))
        data = [element for each in data for element in each]
    return data


def _table(data):
    def no_constant(_text):
        raise Wrong

    def finite(text):
        number = float(text)
        _need(math.isfinite(number))
        return number

    def whole(text):
        number = int(text) if len(text) <= 20 else 2**64
        return number if -(2**63) <= number < 2**64 else finite(text)

    try:
        text = data.decode()
        table = json.loads(text, parse_constant=no_constant, parse_int=whole, parse_float=finite)
        json.dumps(table, ensure_ascii=False).encode()  # lone surrogates
    except RecursionError:
        raise Unclear from None
    except ValueError:
        raise Wrong from None
    return table


# --- gRPC -----------------------------------------------------------------------------------------


def grpc_request(message):
    """The request in a ModelInferRequest."""
    raw = list(message.raw_input_contents)
    inputs = {}
    if any(_REGION in tensor.parameters for tensor in message.inputs):
        raise Unclear
    _need(not raw or len(raw) == len(message.inputs))
    for position, tensor in enumerate(message.inputs):
        _need(tensor.name not in inputs)
        shape, datatype = shape_of(list(tensor.shape)), tensor.datatype
        _need(datatype in DATATYPES)
        if raw:
            _need(not tensor.HasField("contents"))
            inputs[tensor.name] = of_raw(raw[position], datatype=datatype, shape=shape)
            continue
        used = [field.name for field, _ in tensor.contents.ListFields()]
        _need(used in ([], [FIELDS.get(datatype)]))
        elements = list(getattr(tensor.contents, used[0])) if used else []
        inputs[tensor.name] = of_elements(elements, datatype=datatype, shape=shape)
    others = message.parameters or message.outputs
    others = others or any(tensor.parameters for tensor in message.inputs)
    return Request(inputs, is_plain=not others)


def grpc_messages(data, *, most):
    """The messages that a body holds as a whole, each with its flag. Wrong: one is too large."""
    found = []
    while len(data) >= 5:
        size = int.from_bytes(data[1:5], "big")
        _need(size <= most)
        if len(data) < 5 + size:
            break
        found.append((bool(data[0]), data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def grpc_message(data, *, encoding, most):
    """The one message of a body, decompressed."""
    found = grpc_messages(data, most=most)
    _need(len(found) == 1 and len(data) == 5 + len(found[0][1]))
    compressed, payload = found[0]
    if not compressed:
        return payload
    windows = {b"gzip": 31, b"deflate": 15}
    _need(encoding in windows)
    reader = zlib.decompressobj(windows[encoding])
    try:
        whole = reader.decompress(payload, most + 1)
    except zlib.error:
        raise Wrong from None
    _need(reader.eof and len(whole) <= most)
    return whole
