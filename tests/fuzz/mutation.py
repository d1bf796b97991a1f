"""Mutations that keep a request one: of its JSON, its binary data, its message.

A byte that changes anywhere mostly ends in a parser. These change what a request says: values at
the edges of datatypes, sizes one off, fields of another kind, and leave the rest as it was.
"""

import copy
import json
import math
import random
import struct

import atheris
import expected
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

_BLIND_SHARE = 0.2  # of mutations, that know nothing of the form
_EDGES = [
    edge + step
    for bits in (0, 7, 8, 15, 16, 31, 32, 53, 63, 64)
    for edge in (2**bits, -(2**bits))
    for step in (-1, 0, 1)
]
_FLOATS = [0.5, -0.0, 1e-46, 3.4028234663852886e38, 3.4028235677973366e38, 1e39, 1.7e308]
_ODD = [None, True, False, "", "x", "\u00fc\U0001f600", "\x00", [], {}, [[]], [[1], [2]], *_FLOATS]
_KEYS = ("parameters", "inputs", "data", "shape", "id", "outputs", "")
_TEXT_BYTES = 20


def mutated_json(data, max_size, seed):
    """A body of JSON alone."""
    chance = random.Random(seed)
    table = _read(data)
    if table is None or chance.random() < _BLIND_SHARE:
        return atheris.Mutate(data, max_size)
    _change_some(table, chance)
    return _fitting(_dumped(table, chance), data, max_size)


def mutated_binary(data, max_size, seed):
    """Two bytes that say how long the JSON is, JSON, binary data."""
    chance = random.Random(seed)
    length, body = int.from_bytes(data[:2], "little"), data[2:]
    table = _read(body[:length])
    if table is None or chance.random() < _BLIND_SHARE:
        return atheris.Mutate(data, max_size)
    binary = body[length:]
    if chance.random() < 0.6:
        _change_some(table, chance)
    if chance.random() < 0.5:
        binary = _resized(binary, chance)
        _say_sizes(table, len(binary), chance)
    text = _dumped(table, chance)
    step = chance.choice((0, 0, 0, 0, 0, 0, 1, -1, len(binary), len(binary) + 1))
    length = max(0, len(text) + step)
    return _fitting(min(length, 65535).to_bytes(2, "little") + text + binary, data, max_size)


def mutated_message(data, max_size, seed):
    """A ModelInferRequest."""
    chance = random.Random(seed)
    try:
        message = service_pb2.ModelInferRequest.FromString(data)
    except DecodeError:
        return atheris.Mutate(data, max_size)
    if chance.random() < _BLIND_SHARE or not message.inputs:
        return atheris.Mutate(data, max_size)
    for _ in range(chance.choice((1, 1, 2))):
        if message.inputs:
            change = chance.choice((_change_raw, _change_typed, _change_tensor, _change_count))
            change(message, chance)
    return _fitting(message.SerializeToString(), data, max_size)


def mutated_framing(data, max_size, seed):
    """Two bytes, and messages behind their prefixes."""
    chance = random.Random(seed)
    if chance.random() < 0.5 or len(data) < 7:
        return atheris.Mutate(data, max_size)
    size = int.from_bytes(data[3:7], "big")
    step = chance.choice((-1, 0, 1, len(data) - 7 - size, 1 << 20, 1 << 31))
    size = max(0, size + step) % 2**32
    head = bytes([chance.choice((data[2], 0, 1))]) + size.to_bytes(4, "big")
    rest = data[7:] if chance.random() < 0.5 else data[7:] + data[2:]
    return _fitting(data[:2] + head + _resized(rest, chance), data, max_size)


def _read(data):
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _dumped(table, chance):
    try:
        text = json.dumps(table, ensure_ascii=chance.random() < 0.5)
    except RecursionError:
        return b"[]"
    return text.encode("utf-8", "surrogatepass")


def _fitting(made, data, max_size):
    return made if len(made) <= max_size else atheris.Mutate(data, max_size)


def _resized(data, chance):
    half = data[: len(data) // 2]
    return chance.choice((data, data + b"\0", data[:-1], data * 2, half, b"\1" * 8))


def _say_sizes(table, size, chance):
    """Let the inputs say sizes that add up, or nearly."""
    given = [each for each in _inputs(table) if isinstance(each.get("parameters"), dict)]
    for position, tensor in enumerate(given):
        own = size - size // 2 if position == 0 and len(given) > 1 else size // max(1, len(given))
        own += chance.choice((0, 0, 0, 1, -1))
        tensor["parameters"]["binary_data_size"] = own
        if chance.random() < 0.7:
            kind = tensor.get("datatype")
            item = expected.ITEM_BYTES.get(kind if isinstance(kind, str) else "", 1)
            tensor["shape"] = [1, max(0, own) // item]


def _inputs(table):
    given = table.get("inputs")
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _change_some(table, chance):
    given = _inputs(table)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if given and chance.random() < 0.75:
            _change_input(chance.choice(given), chance)
        else:
            _change_anywhere(table, chance)


def _change_input(tensor, chance):
    data = tensor.get("data")
    choice = chance.randrange(6)
    if choice == 0:
        tensor["datatype"] = chance.choice(expected.DATATYPES)
    elif choice in (1, 2) and isinstance(data, list):
        kind = tensor["datatype"] = chance.choice((tensor.get("datatype"), *expected.DATATYPES))
        count = chance.choice((0, 1, 1, 2, 6))
        tensor["data"] = [element(kind, chance) for _ in range(count)]
        tensor["shape"] = chance.choice(([1, count], [count], [count, 1, 1]))
    elif choice == 3 and isinstance(data, list) and data:
        place = chance.randrange(len(data))
        data[place] = _one_of((element(tensor.get("datatype"), chance), *_ODD), chance)
    elif choice == 4 and isinstance(data, list) and len(data) > 1:
        half = len(data) // 2 + chance.choice((0, 0, 1))
        tensor["data"] = [data[:half], data[half:]]
    else:
        _change_anywhere(tensor, chance)


def element(datatype, chance):
    """A value that the datatype can hold, or just not."""
    if datatype == "BOOL":
        return chance.choice((True, False, 0, 1, "true"))
    if datatype == "BYTES":
        return chance.choice(("", "x", "\u00fc", "x" * _TEXT_BYTES, 1))
    code = {**expected.INTEGERS, **expected.FLOATS}.get(str(datatype), "f")
    if code in "fd":
        return chance.choice((*_FLOATS, *_EDGES))
    bits = 8 * struct.calcsize(f"<{code}")
    low, high = (0, 2**bits - 1) if code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return chance.choice((low, high, low - 1, high + 1, 0, 1, -1, 1.0, chance.choice(_EDGES)))


def _one_of(values, chance):
    """A copy of one: what is changed later is not the constant."""
    return copy.deepcopy(chance.choice(values))


def _change_anywhere(node, chance):
    """Replace, remove, double or rename something inside of an object or a list."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and chance.random() < 0.6:
            node = node[key]
            continue
        break
    choice = chance.randrange(4)
    if choice == 0:
        del node[key]
    elif choice == 1 and isinstance(node, list):
        node.append(node[key])
    elif choice == 1:
        node[chance.choice(_KEYS)] = node[key]
    elif choice == 2 and type(node[key]) is int:
        node[key] += chance.choice((-1, 1))
    else:
        node[key] = _one_of((*_ODD, *_EDGES), chance)


# --- messages -------------------------------------------------------------------------------------


def _change_raw(message, chance):
    if not message.raw_input_contents:
        for tensor in message.inputs:
            tensor.ClearField("contents")
            message.raw_input_contents.append(b"\0" * _bytes_of(tensor))
        return
    place = chance.randrange(len(message.raw_input_contents))
    message.raw_input_contents[place] = _resized(message.raw_input_contents[place], chance)


def _change_typed(message, chance):
    del message.raw_input_contents[:]
    for tensor in message.inputs:
        tensor.datatype = chance.choice((tensor.datatype, *expected.FIELDS))
        field = expected.FIELDS.get(tensor.datatype)
        if field is None:
            continue
        tensor.ClearField("contents")
        values = [element(tensor.datatype, chance) for _ in range(chance.choice((0, 1, 1, 3)))]
        for value in values:
            try:
                is_bytes = isinstance(value, str) and field == "bytes_contents"
                getattr(tensor.contents, field).append(value.encode() if is_bytes else value)
            except (TypeError, ValueError):
                continue
        del tensor.shape[:]
        tensor.shape.extend((1, len(getattr(tensor.contents, field))))


def _change_tensor(message, chance):
    tensor = chance.choice(message.inputs)
    choice = chance.randrange(5)
    if choice == 0:
        tensor.datatype = chance.choice((*expected.DATATYPES, "FP8", ""))
    elif choice == 1 and tensor.shape:
        place = chance.randrange(len(tensor.shape))
        tensor.shape[place] = chance.choice((-1, 0, 1, 2**40, 2**62, tensor.shape[place] + 1))
    elif choice == 2:
        tensor.shape.append(chance.choice((0, 1, 2)))
    elif choice == 3:
        tensor.name = chance.choice(("INPUT0", "", "x"))
    else:
        tensor.contents.int_contents.append(1)


def _change_count(message, chance):
    choice = chance.randrange(4)
    if choice == 0:
        message.inputs.add().CopyFrom(chance.choice(message.inputs))
    elif choice == 1:
        message.raw_input_contents.append(b"\0" * 4)
    elif choice == 2:
        del message.inputs[-1]
    elif message.raw_input_contents:
        del message.raw_input_contents[-1]


def _bytes_of(tensor):
    count = math.prod(size for size in tensor.shape if 0 <= size < 1 << 10)
    return min(4096, count * expected.ITEM_BYTES.get(tensor.datatype, 4))
