"""gRPC over one HTTP/2 connection, for 10 us of CPU per request.

Every frame is made beforehand; only stream numbers are put in. Requests that are due together leave
in one write. The peer's flow control, frame size and number of streams are respected.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from loadtest.wire import frames as http2
from loadtest.wire.hpack import MALFORMED_BLOCK, NO_STATUS, StatusReader
from loadtest.wire.ledger import ANSWERED, MALFORMED, RESET, Ledger
from loadtest.wire.streams import Streams

_TOP_UP_BYTES = 2**30
_WHOLE = http2.END_HEADERS | http2.PADDED | http2.PRIORITY
_GREETING = (
    http2.PREFACE
    + http2.settings_frame(
        {
            http2.HEADER_TABLE_SIZE: 0,  # equal answers are equal bytes then
            http2.ENABLE_PUSH: 0,
            http2.INITIAL_WINDOW_SIZE: http2.LARGEST_WINDOW_BYTES,
        }
    )
    + http2.number_frame(
        http2.WINDOW_UPDATE, number=http2.LARGEST_WINDOW_BYTES - http2.DEFAULT_WINDOW_BYTES
    )
)


class Http2Line(asyncio.Protocol):
    """One connection. `progressed(line, answered)` is called after each read.

    `ready` is done when the server's settings are known. There is a call for each deadline class.
    """

    def __init__(
        self,
        calls: Sequence[http2.Call],
        *,
        ledger: Ledger,
        authority: str,
        progressed: Callable[["Http2Line", int], None],
    ) -> None:
        self._ledger = ledger
        self._streams = Streams(calls, ledger=ledger, authority=authority, write=self._write)
        self._progressed = progressed
        self._transport: asyncio.WriteTransport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = StatusReader()
        self._bodies: dict[int, bytes] = {}  # by stream, where answers are kept
        self._rest = b""
        self._received_bytes = 0
        self._going_away = False
        self._collected: tuple[int, bytes] | None = None  # flags and block of a cut header block

    @property
    def open(self) -> bool:
        """Whether it takes requests."""
        return self._transport is not None and not self._going_away

    def send(self, requests: Iterable[int]) -> None:
        """Send these requests, or have them wait for windows and streams."""
        self._streams.send(requests)

    def give_up(self) -> None:
        """Cancel the streams whose deadline has passed, as clients of gRPC do."""
        self._streams.give_up()

    def close(self) -> None:
        """Close the connection; what is under way stays unanswered."""
        transport, self._transport = self._transport, None
        if transport:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport  # type: ignore[assignment]  # of a socket: it can be written to
        self._write(_GREETING)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fail whatever is under way, unless it was us who closed."""
        if self._transport is None:
            return
        self._transport = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed the connection at once"))
        self._streams.fail(after_stream=0)
        self._progressed(self, 0)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._streams.paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._streams.paused = False
        self._streams.flush()

    def data_received(self, data: bytes) -> None:
        """Take the frames apart."""
        now_ns = self._ledger.now_ns()
        if self._rest:
            data = self._rest + data
        position, end, unpack = 0, len(data), http2.HEADER.unpack_from
        while end - position >= http2.HEADER_BYTES:
            high, low, kind, flags, stream = unpack(data, position)
            begin = position + http2.HEADER_BYTES
            stop = begin + (high << 8 | low)
            if stop > end:
                break
            position = stop
            if kind == http2.HEADERS and flags & _WHOLE == http2.END_HEADERS:
                self._headers(stream, flags=flags, block=data[begin:stop], now_ns=now_ns)
            elif kind == http2.DATA:
                self._received_bytes += stop - begin
                if stop - begin >= http2.MESSAGE_PREFIX_BYTES:
                    self._streams.has_data[stream >> 1] = 1
                if self._ledger.answers is not None:
                    self._bodies[stream] = self._bodies.get(stream, b"") + data[begin:stop]
                if flags & http2.END_STREAM:  # without a status
                    self._streams.end(stream, status=MALFORMED, now_ns=now_ns)
            else:
                self._control(kind, flags=flags, stream=stream, payload=data[begin:stop])
        self._rest = data[position:]
        self._after_read()

    def _after_read(self) -> None:
        if self._received_bytes > _TOP_UP_BYTES:
            self._write(http2.number_frame(http2.WINDOW_UPDATE, number=self._received_bytes))
            self._received_bytes = 0
        self._streams.flush()
        answered, self._streams.answered = self._streams.answered, 0
        self._progressed(self, answered)

    def _headers(self, stream: int, *, flags: int, block: bytes, now_ns: int) -> None:
        status = self._reader.read(block)
        if flags & http2.END_STREAM:
            if status <= NO_STATUS or (
                status == ANSWERED and not self._streams.has_data[stream >> 1]
            ):
                status = MALFORMED
            if self._ledger.answers is not None:
                self._keep(stream, status=status)
            self._streams.end(stream, status=status, now_ns=now_ns)
        elif status == MALFORMED_BLOCK:
            self._streams.end(stream, status=MALFORMED, now_ns=now_ns)

    def _keep(self, stream: int, *, status: int) -> None:
        body, kind = self._bodies.pop(stream, b""), self._streams.kind_of(stream)
        if status == ANSWERED and kind is not None and self._ledger.answers is not None:
            self._ledger.answers.note(kind, body[http2.MESSAGE_PREFIX_BYTES :])

    def _control(self, kind: int, *, flags: int, stream: int, payload: bytes) -> None:
        now_ns = self._ledger.now_ns()
        if kind == http2.SETTINGS and not flags & http2.ACK:
            self._apply(http2.read_settings(payload))
        elif kind == http2.PING and not flags & http2.ACK:
            self._write(http2.frame(http2.PING, flags=http2.ACK, payload=payload))
        elif kind == http2.WINDOW_UPDATE:
            self._streams.widen(stream, by_bytes=int.from_bytes(payload, "big"))
        elif kind == http2.RST_STREAM:
            if int.from_bytes(payload, "big") == http2.REFUSED_STREAM:
                self._streams.refused(stream)
            self._streams.end(stream, status=RESET, now_ns=now_ns)
        elif kind == http2.GOAWAY:
            self._going_away = True
            self._streams.fail(after_stream=int.from_bytes(payload[:4], "big"))
        elif kind in (http2.HEADERS, http2.CONTINUATION):
            self._collect(kind, flags=flags, stream=stream, payload=payload)

    def _collect(self, kind: int, *, flags: int, stream: int, payload: bytes) -> None:
        """A header block in pieces, or with padding."""
        if kind == http2.HEADERS:
            if flags & http2.PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & http2.PRIORITY:
                payload = payload[5:]
            self._collected = flags, b""
        first_flags, block = self._collected or (flags, b"")
        self._collected = first_flags, block + payload
        if flags & http2.END_HEADERS:
            whole, now_ns = block + payload, self._ledger.now_ns()
            self._headers(stream, flags=first_flags, block=whole, now_ns=now_ns)

    def _apply(self, settings: dict[int, int]) -> None:
        self._streams.apply(settings)
        self._write(http2.frame(http2.SETTINGS, flags=http2.ACK))
        if not self.ready.done():
            self.ready.set_result(None)

    def _write(self, data: bytes) -> None:
        if data and self._transport:
            self._transport.write(data)
