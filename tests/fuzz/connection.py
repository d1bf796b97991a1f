"""A client that sends any frames, on a connection of the whole gRPC service without a socket."""

import asyncio
import logging
from pathlib import Path

import atheris
from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_method import INFER
from serving.protocol.http2_headers import stateless_block
from serving.protocol.uploads import Uploads
from serving.registry import Registry
from serving.settings import ServeSettings

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_MOST_REQUEST_BYTES, _MOST_HELD_BYTES = 2_000, 8_000
_SERVICE = "/inference.GRPCInferenceService"
_LIVE, _STREAM = f"{_SERVICE}/ServerLive", f"{_SERVICE}/ModelStreamInfer"
_FRAME_TYPES, _RST_STREAM, _WINDOW_UPDATE = 10, 0x3, 0x8
_PATIENCE_S = 5


def _block(path, *fields):
    common = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"fuzz")]
    kind = (b"content-type", b"application/grpc")
    return stateless_block([*common, (b":path", path.encode()), kind, *fields])


_BLOCKS = [
    _block(INFER),
    _block(_STREAM),
    _block(_LIVE),
    _block("/no/Such", (b"grpc-timeout", b"1n")),
    _block(INFER, (b"grpc-encoding", b"gzip")),
]
_MESSAGES = [
    b"",
    service_pb2.ModelInferRequest(model_name="none").SerializeToString(),
    b"\xff\xff",
]


class _Transport(asyncio.Transport):
    """Keeps what is written; a closed one takes nothing more."""

    def __init__(self):
        super().__init__()
        self.sent = bytearray()
        self.closing = False

    def write(self, data):
        assert not self.closing
        self.sent += data

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    abort = close

    def pause_reading(self):
        """Nothing reads by itself."""

    resume_reading = pause_reading


class _Faults(logging.Handler):
    """What the table of statuses did not know, and what a task raised, are faults of ours."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(self.format(record))


def _frame(reader):
    """One frame; every other time of a sensible kind, so that what lies deeper is reached."""
    kind = reader.ConsumeIntInRange(0, _FRAME_TYPES)
    flags, number = reader.ConsumeInt(1) & 0xFF, reader.ConsumeIntInRange(0, 5)
    choice = reader.ConsumeIntInRange(0, 4)
    if choice == 0:
        payload = reader.ConsumeBytes(reader.ConsumeIntInRange(0, 300))
    elif choice == 1:
        kind, flags = 0x1, 0x4 | flags & 0x1
        payload = _BLOCKS[reader.ConsumeIntInRange(0, len(_BLOCKS) - 1)]
    elif choice == 2:
        kind, flags = 0x0, flags & 0x1
        message = _MESSAGES[reader.ConsumeIntInRange(0, len(_MESSAGES) - 1)]
        payload = bytes([reader.ConsumeBool()]) + len(message).to_bytes(4, "big") + message
    elif choice == 3:
        payload = bytes(reader.ConsumeIntInRange(0, _MOST_REQUEST_BYTES))
    else:
        kind, payload = (_RST_STREAM, _WINDOW_UPDATE)[flags & 0x1], b"\0\0\0\7"
    size = len(payload) + (reader.ConsumeIntInRange(0, 1 << 24) if flags & 0x80 else 0)
    return (
        min(size, (1 << 24) - 1).to_bytes(3, "big")
        + bytes([kind, flags])
        + number.to_bytes(4, "big")
        + payload
    )


def _check_frames(data):
    """What the server writes are whole frames."""
    place = 0
    while place < len(data):
        place += 9 + int.from_bytes(data[place : place + 3], "big")
    assert place == len(data)


class Client:
    """Sends what a fuzzer makes up, in reads cut anywhere."""

    def __init__(self):
        self._faults = _Faults()
        for name in ("serving", "asyncio"):
            logging.getLogger(name).addHandler(self._faults)
        self._loop = asyncio.new_event_loop()
        self._service = self._loop.run_until_complete(self._made())

    @staticmethod
    async def _made():
        settings = ServeSettings(repository=Path("/nonexistent"))
        uploads = Uploads(most_bytes=_MOST_HELD_BYTES)
        service = GrpcService(
            DataPlane(Registry(settings)), max_request_bytes=_MOST_REQUEST_BYTES, uploads=uploads
        )
        service.methods = {path: service.methods[path] for path in (INFER, _LIVE)}
        return service

    def send(self, data):
        """One connection, from its preface to its end."""
        self._loop.run_until_complete(self._send(atheris.FuzzedDataProvider(data)))

    async def _send(self, reader):
        service, transport = self._service, _Transport()
        connection = service.connection()
        connection.connection_made(transport)
        wire = reader.PickValueInList([_PREFACE + _SETTINGS] * 3 + [b""])
        while reader.remaining_bytes() and not transport.closing:
            wire += _frame(reader)
            cut = reader.ConsumeIntInRange(0, len(wire))
            if cut:
                connection.data_received(wire[:cut])
                wire = wire[cut:]
            assert service.uploads.held_bytes <= _MOST_HELD_BYTES
            assert len(connection._rest) <= connection.limits.frame_bytes + len(_SETTINGS)
            if reader.ConsumeBool():
                await asyncio.sleep(0)
        if wire and not transport.closing:
            connection.data_received(wire)
        await asyncio.sleep(0)
        connection.connection_lost(None)
        if service.tasks:
            await asyncio.wait(service.tasks, timeout=_PATIENCE_S)
        _check_frames(transport.sent)
        assert not self._faults.found, self._faults.found
        assert not service.tasks
        assert service.uploads.held_bytes == 0
        assert not service.connections
