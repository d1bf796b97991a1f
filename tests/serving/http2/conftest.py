"""HTTP/2 in memory: a server's connection, and at its other end h2 or frames made by hand."""

import asyncio
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import Settings

from serving.protocol.grpc_http2 import GrpcService
from serving.protocol.http2 import Connection
from serving.protocol.http2_headers import Envelope, stateless_block
from serving.protocol.http2_sending import Limits, Stream
from serving.protocol.uploads import Uploads

_PATIENCE_S = 60  # a test that waits so long has failed; it never does otherwise
HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a"),
    (b":authority", b"test"),
    (b"content-type", b"application/test"),
]
ANSWER = Envelope(head=[(b":status", b"200"), (b"x", b"y")], trailers=[(b"status", b"0")])
REFUSAL = stateless_block([(b":status", b"415")])


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and whether its protocol wants to read or has closed it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.wrote = asyncio.Event()
        self.reading = True
        self.closing = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self.sent += data
        self.wrote.set()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.wrote.set()

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass(frozen=True)
class Frame:
    """An HTTP/2 frame, built and read by hand: for what a proper client refuses to send."""

    kind: int
    flags: int
    number: int
    payload: bytes = b""

    def __bytes__(self) -> bytes:
        head = len(self.payload).to_bytes(3, "big") + bytes([self.kind, self.flags])
        return head + self.number.to_bytes(4, "big") + self.payload

    @classmethod
    def all_of(cls, data: bytes) -> list["Frame"]:
        """The frames one behind the other; nothing may be left over."""
        frames = []
        while data:
            size = 9 + int.from_bytes(data[:3], "big")
            assert len(data) >= size
            number = int.from_bytes(data[5:9], "big")
            frames.append(cls(data[3], data[4], number, bytes(data[9:size])))
            data = data[size:]
        return frames


class Http2Wire:
    """A server's connection without a socket; at the other end h2, an independent client."""

    frame, head, block = Frame, HEAD, stateless_block(HEAD)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    def __init__(
        self, connection: asyncio.Protocol, *, settings: Mapping[int, int] | None = None
    ) -> None:
        self.connection = connection
        self.transport = MemoryTransport()
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.client.local_settings = Settings(client=True, initial_values=dict(settings or {}))
        self.events: list[Any] = []
        connection.connection_made(self.transport)

    def greet(self) -> "Http2Wire":
        """Begin as a client does."""
        self.client.initiate_connection()
        self.deliver()
        return self

    def greet_by_hand(self) -> "Http2Wire":
        """Begin where all that follows is made by hand."""
        self.deliver(self.preface + bytes(Frame(0x4, 0, 0)))
        return self

    def deliver(self, data: bytes | None = None) -> None:
        """Let the connection read those bytes, or else what the client wants to send."""
        data = self.client.data_to_send() if data is None else data
        if data and not self.transport.closing:
            self.connection.data_received(data)

    def ask(self, number: int, *chunks: bytes) -> None:
        """Send a whole request."""
        self.client.send_headers(number, HEAD, end_stream=not chunks)
        for place, chunk in enumerate(chunks, start=1):
            self.client.send_data(number, chunk, end_stream=place == len(chunks))
        self.deliver()

    def answered(self, number: int, *, among: list[Any] | None = None) -> tuple[bytes, bool]:
        """The body of an answer among events, or all of them, and whether it has ended."""
        events = self.events if among is None else among
        of_it = [event for event in events if getattr(event, "stream_id", None) == number]
        body = b"".join(event.data for event in of_it if isinstance(event, DataReceived))
        return body, any(isinstance(event, StreamEnded) for event in of_it)

    async def frames(self) -> list[Frame]:
        """What was sent since, one turn of the loop later."""
        await asyncio.sleep(0)
        data = bytes(self.transport.sent)
        self.transport.sent.clear()
        return Frame.all_of(data)

    async def receive(self) -> list[Any]:
        """What the client makes of what was sent since; what it says to that is delivered."""
        await asyncio.sleep(0)
        return self._read()

    async def receive_until(self, kind: type, *, stream: int | None = None) -> Any:
        """Wait for the first such event, of that stream."""
        while True:
            for event in self.events:
                if type(event) is kind and (stream is None or event.stream_id == stream):
                    return event
            await self.more()

    async def more(self) -> None:
        """Wait until something is sent, and let the client read it."""
        assert not self.transport.closing
        await asyncio.wait_for(self.transport.wrote.wait(), _PATIENCE_S)
        self._read()

    def _read(self) -> list[Any]:
        self.transport.wrote.clear()
        data = bytes(self.transport.sent)
        self.transport.sent.clear()
        events: list[Any] = self.client.receive_data(data) if data else []
        self.events += events
        self.deliver()
        return events


@pytest.fixture(scope="session")
def http2_wire() -> type[Http2Wire]:
    return Http2Wire


@dataclass(frozen=True)
class GrpcAnswer:
    """What a call was answered: HTTP's status, gRPC's (its number), its text, metadata, body."""

    http: int
    code: int | None
    text: str
    metadata: dict[bytes, bytes]
    body: bytes

    @property
    def message(self) -> bytes:
        """The one message in the body, behind its prefix."""
        assert self.body[:5] == b"\0" + (len(self.body) - 5).to_bytes(4, "big")
        return self.body[5:]


class GrpcWire:
    """Calls over one connection of a service, each with its body in parts."""

    def __init__(self, service: GrpcService) -> None:
        self.wire = Http2Wire(service.connection()).greet()
        self._last = -1

    @staticmethod
    def framed(data: bytes, *, flag: int = 0) -> bytes:
        """A message behind its prefix."""
        return bytes([flag]) + len(data).to_bytes(4, "big") + data

    def send(
        self,
        path: str,
        *parts: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        content_type: bytes = b"application/grpc",
        ends: bool = True,
    ) -> int:
        """Send a call, whole or, where it does not end, its beginning; returns its stream."""
        self.wire.deliver()
        self._last += 2
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"test"),
            (b"te", b"trailers"),
            (b"content-type", content_type),
            *headers,
        ]
        self.wire.client.send_headers(self._last, fields, end_stream=ends and not parts)
        self.wire.deliver()
        for place, part in enumerate(parts, start=1):
            ends_here = ends and place == len(parts)
            self.wire.deliver(bytes(Frame(0x0, ends_here, self._last, part)))
        if ends and parts:  # h2 has not seen the frames made by hand
            self.wire.client.end_stream(self._last)
            self.wire.client.clear_outbound_data_buffer()
        return self._last

    async def answer(self, number: int) -> GrpcAnswer:
        """Wait for the answer on that stream."""
        await self.wire.receive_until(StreamEnded, stream=number)
        fields: dict[bytes, bytes] = {}
        for event in self.wire.events:
            if isinstance(event, (ResponseReceived, TrailersReceived)):
                fields |= dict(event.headers) if event.stream_id == number else {}
        code = fields.pop(b"grpc-status", None)
        text = fields.pop(b"grpc-message", b"").decode("ascii")
        return GrpcAnswer(
            http=int(fields.pop(b":status")),
            code=None if code is None else int(code),
            text=urllib.parse.unquote(text),
            metadata=fields,
            body=self.wire.answered(number)[0],
        )

    async def call(self, path: str, *parts: bytes, **what: Any) -> GrpcAnswer:
        """Send a call and wait for its answer."""
        return await self.answer(self.send(path, *parts, **what))


class RecordedStream(Stream):
    """A stream that remembers what happened to it."""

    def __init__(self, connection, number, head):
        super().__init__(connection, number)
        self.head = head
        self.chunks = []
        self.times_ended = self.times_aborted = self.times_drained = 0
        self.given_up = None

    @property
    def body(self):
        return b"".join(self.chunks)

    @property
    def outcome(self):
        return self.number, self.head, self.body, self.times_ended, self.times_aborted

    def received(self, chunk):
        self.chunks.append(chunk)

    def ended(self):
        self.times_ended += 1

    def aborted(self):
        self.times_aborted += 1

    def drained(self):
        self.times_drained += 1

    def give_up(self, error):
        self.given_up = error
        self.refuse(reset=True)

    def answer(self, *body):
        self.connection.answer(self, envelope=ANSWER, body=body)

    def refuse(self, *, reset=False):
        self.connection.refuse(self, block=REFUSAL, reset=reset)


class RecordingServer:
    """The streams of a connection, in the order in which they were opened.

    It `refuses` requests that come at once, if it is told to.
    """

    def __init__(self, limits=None, uploads=None):
        self.streams = []
        self.came_at_once = []  # bodies, or None for what came in pieces
        self.refuses = False
        self.connections = set()
        self.connection = Connection(
            open_stream=self._open,
            read_head=tuple,
            limits=limits or Limits(),
            uploads=uploads or Uploads(most_bytes=2**30),
            connections=self.connections,
        )

    def _open(self, connection, number, head, body):
        self.came_at_once.append(None if body is None else bytes(body))
        if self.refuses and body is not None:
            connection.refuse_at_once(number, block=REFUSAL)
            return None
        self.streams.append(RecordedStream(connection, number, head))
        return self.streams[-1]


@pytest.fixture(scope="session")
def http2_server() -> type[RecordingServer]:
    return RecordingServer


@pytest.fixture(scope="session")
def grpc_wire() -> type[GrpcWire]:
    return GrpcWire


@pytest.fixture
def server() -> RecordingServer:
    return RecordingServer()


@pytest.fixture
async def wire(server: RecordingServer) -> Http2Wire:
    """A connection of `server` with h2 at its other end."""
    return Http2Wire(server.connection).greet()


@pytest.fixture
async def hand(server: RecordingServer) -> Http2Wire:
    """A connection of `server` with frames made by hand at its other end."""
    return Http2Wire(server.connection).greet_by_hand()
