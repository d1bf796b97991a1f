"""A client that sends any frames, on a connection of the whole gRPC service without a socket."""

import asyncio
import logging
import random
from pathlib import Path

import frames
import hpack
from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.grpc_method import INFER
from serving.protocol.http2_headers import MAX_HEADER_BYTES, stateless_block
from serving.protocol.http2_sending import Limits
from serving.protocol.uploads import Uploads
from serving.registry import Registry
from serving.settings import ServeSettings

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_MOST_REQUEST_BYTES, _MOST_HELD_BYTES = 2_000, 8_000
_SERVICE = "/inference.GRPCInferenceService"
_LIVE, _STREAM = f"{_SERVICE}/ServerLive", f"{_SERVICE}/ModelStreamInfer"
_MOST_BODY_BYTES = _MOST_REQUEST_BYTES + 5
_PIECE_BYTES = 300  # what a piece of a call takes beside its bytes, at most
_OK, _LOADING, _TOO_LARGE = b"0", b"14", b"8"  # of gRPC; no model is ever loaded here
_PATIENCE_S = 5
_TURNS = 10  # of the loop, within which a call that is complete is answered


def _block(path, *fields):
    common = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"fuzz")]
    kind = (b"content-type", b"application/grpc")
    return stateless_block([*common, (b":path", path.encode()), kind, *fields])


_INFER_BLOCK, _LIVE_BLOCK = _block(INFER), _block(_LIVE)
_UNKNOWN = service_pb2.ModelInferRequest(model_name="none").SerializeToString()


def _message(payload):
    return b"\0" + len(payload).to_bytes(4, "big") + payload


_LIVE_BODY, _INFER_BODY = _message(b""), _message(_UNKNOWN)
mutate = frames.Mutator(
    blocks=[
        _LIVE_BLOCK,
        _INFER_BLOCK,
        _block(_STREAM),
        _block("/no/Such", (b"grpc-timeout", b"1n")),
        _block(INFER, (b"grpc-encoding", b"gzip")),
    ],
    bodies=[_LIVE_BODY, _INFER_BODY, _message(b"\xff\xff"), b"\1" + _INFER_BODY[1:], b""],
    most_frame_bytes=Limits().frame_bytes,
    most_body_bytes=_MOST_BODY_BYTES,
)


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
        """One connection, from its preface to its end; the first byte says how it is cut."""
        if data:
            self._loop.run_until_complete(self._send(data[1:], random.Random(data[0])))

    async def _send(self, wire, chance):
        service, transport = self._service, _Transport()
        connection = service.connection()
        connection.connection_made(transport)
        connection.data_received(_PREFACE + _SETTINGS)
        left, at_once = wire, chance.random() < 0.3
        while left and not transport.closing:
            cut = len(left) if at_once else chance.choice((1, 9, 10, 64, len(left)))
            connection.data_received(left[:cut])
            left = left[cut:]
            assert service.uploads.held_bytes <= _MOST_HELD_BYTES
            assert len(connection._rest) <= connection.limits.frame_bytes + len(_SETTINGS)
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        for _ in range(_TURNS):  # a call that waits for more of itself never ends
            await asyncio.sleep(0)
        closed = transport.closing
        connection.connection_lost(None)
        if service.tasks:
            await asyncio.wait(service.tasks, timeout=_PATIENCE_S)
        _check_frames(transport.sent)
        assert not self._faults.found, self._faults.found
        assert not service.tasks
        assert service.uploads.held_bytes == 0
        assert not service.connections
        _judge(frames.frames_of(wire), closed=closed, answers=frames.frames_of(transport.sent))


def _judge(sent, *, closed, answers):
    """Hold what became of the frames to what must."""
    fault, before = frames.fault_of(
        sent, most_frame_bytes=Limits().frame_bytes, most_header_bytes=MAX_HEADER_BYTES
    )
    # Who says goodbye is let go without an error, perhaps before the fault has come.
    leaves = any(each.kind == frames.GOAWAY for each in before)
    assert not fault or (closed if leaves else _is_accused(answers)), f"{fault} was let pass"
    calls = None if closed else frames.calls_of(sent)
    held = sum(each.size + _PIECE_BYTES for each in sent if each.kind == frames.DATA)
    if calls is None or held > _MOST_HELD_BYTES:
        return  # something else may have become of them
    for number, call in calls.items():
        expected = _status_of(call)
        if expected is not None:
            told = _told(answers, number)
            assert told == expected, f"stream {number} must end with {expected}, not {told}"


def _is_accused(answers):
    """Whether the connection ended with a GOAWAY that tells of an error."""
    last = answers[-1]
    return last.kind == frames.GOAWAY and any(last.payload[4:8])


def _status_of(call):
    """What a call must end with; None where it is not clear, or has no end."""
    if call.block == _INFER_BLOCK and len(call.body) > _MOST_BODY_BYTES:
        return _TOO_LARGE
    if not call.ended:
        return None
    answers = {(_LIVE_BLOCK, _LIVE_BODY): _OK, (_INFER_BLOCK, _INFER_BODY): _LOADING}
    return answers.get((call.block, call.body))


def _told(answers, number):
    """The status in the trailers of a stream."""
    for each in answers:
        if each.kind == frames.HEADERS and each.number == number and each.flags & 0x1:
            return dict(hpack.Decoder().decode(each.payload, raw=True)).get(b"grpc-status")
    return None
