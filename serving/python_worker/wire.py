"""Messages between the server and the worker process of a Python model.

A message is a JSON object and any number of arrays behind it: sixteen bytes (the lengths of the
JSON and of everything behind), the JSON, the arrays' bytes. Nothing is unpickled, so that a model
gone astray can send nothing that runs in the server.
"""

import json
import math
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ridgeline.datatypes import datatype, datatype_of_numpy

_LENGTHS = struct.Struct("<QQ")
_ELEMENT = struct.Struct("<I")
_MOST_BUFFERS = 512  # that one sendmsg takes, less than IOV_MAX

Message = dict[str, Any]


class Channel:
    """One end of a socket; any thread may send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._sending = threading.Lock()

    def send(self, message: Message, arrays: Sequence[np.ndarray] = ()) -> None:
        """Send a message. Raises OSError where the other side has gone."""
        buffers = [_raw(array) for array in arrays]
        described = [
            {
                "datatype": datatype_of_numpy(array.dtype).name,
                "shape": array.shape,
                "bytes": len(buffer),
            }
            for array, buffer in zip(arrays, buffers, strict=True)
        ]
        head = json.dumps({**message, "arrays": described}).encode()
        lengths = _LENGTHS.pack(len(head), sum(map(len, buffers)))
        with self._sending:
            _send_all(self.socket, [memoryview(lengths + head), *buffers])

    def receive(self) -> tuple[Message, list[np.ndarray]] | None:
        """The next message; None where the other side has closed. Raises OSError."""
        lengths = _receive(self.socket, _LENGTHS.size)
        if lengths is None:
            return None
        head_bytes, body_bytes = _LENGTHS.unpack(lengths)
        head, body = _receive(self.socket, head_bytes), _receive(self.socket, body_bytes)
        if head is None or body is None:
            return None
        message: Message = json.loads(head)
        arrays, position = [], 0
        for described in message.pop("arrays"):
            end = position + described["bytes"]
            arrays.append(_array(memoryview(body)[position:end], described))
            position = end
        return message, arrays

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


def _send_all(end: socket.socket, buffers: list[memoryview]) -> None:
    buffers = [buffer for buffer in buffers if len(buffer)]
    while buffers:
        sent = end.sendmsg(buffers[:_MOST_BUFFERS])
        while buffers and sent >= len(buffers[0]):
            sent -= len(buffers.pop(0))
        if sent:
            buffers[0] = buffers[0][sent:]


def _receive(end: socket.socket, count: int) -> bytearray | None:
    data = bytearray(count)
    left = memoryview(data)
    while left:
        received = end.recv_into(left)
        if not received:
            return None
        left = left[received:]
    return data


def _raw(array: np.ndarray) -> memoryview:
    if array.dtype.kind in "OSU":
        elements = [
            element if isinstance(element, bytes) else str(element).encode()
            for element in array.ravel()
        ]
        return memoryview(b"".join(_ELEMENT.pack(len(data)) + data for data in elements))
    if not array.size:
        return memoryview(b"")
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data


def _array(data: memoryview, described: Message) -> np.ndarray:
    kind, shape = datatype(described["datatype"]), tuple(described["shape"])
    if kind.name != "BYTES":
        array: np.ndarray = np.frombuffer(data, dtype=kind.numpy).reshape(shape)
        return array if array.flags.aligned else array.copy()
    elements = np.empty(math.prod(shape), dtype=np.object_)
    position = 0
    for index in range(len(elements)):
        start = position + _ELEMENT.size
        position = start + _ELEMENT.unpack(data[position:start])[0]
        elements[index] = bytes(data[start:position])
    return elements.reshape(shape)
