"""HTTP/2 (RFC 9113) on asyncio, for few connections that carry many small requests.

No library does this at the cost of a few microseconds: those in Python take hundreds per request,
and a native one pays for its own threads and for every ASGI event. Header compression, the part
with state and tables, is the library `hpack`; blocks that leave its table as it was are remembered.

What arrives is handed on as views of the bytes that were read; what is sent in one turn of the
event loop leaves in one write.
"""

import asyncio
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import hpack
from mypy_extensions import mypyc_attr

from ridgeline.errors import Overloaded
from serving.protocol.uploads import PIECE_BYTES, Upload, Uploads

Buffer = bytes | memoryview
Fields = Iterable[tuple[bytes, bytes]]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9
_read_header = struct.Struct(">IBI").unpack_from  # 24 bits of length with 8 of type, flags, stream
_header = struct.Struct(">IBI").pack
_read_setting = struct.Struct(">HI").iter_unpack
_setting = struct.Struct(">HI").pack
_read_word = struct.Struct(">I").unpack_from
_word = struct.Struct(">I").pack

_SETTING_BYTES, _PRIORITY_BYTES, _LEAST_GOAWAY_BYTES = 6, 5, 8

# Frame types (section 6).
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
_PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x6, 0x7, 0x8, 0x9
# Whether a frame speaks of the whole connection, and its size, where these are laid down.
_OF_CONNECTION = {
    **dict.fromkeys((_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _CONTINUATION), False),
    **dict.fromkeys((_SETTINGS, _PING, _GOAWAY), True),
}
_SIZES = {_PRIORITY: 5, _RST_STREAM: 4, _PING: 8, _WINDOW_UPDATE: 4}
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _WITH_PRIORITY = 0x4, 0x8, 0x20
_STREAM_BITS = 0x7FFFFFFF

# Settings by their numbers (section 6.5.2).
_ENABLE_PUSH, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 2, 3, 4
_MAX_FRAME_SIZE, _MAX_HEADER_LIST_SIZE = 5, 6
_DEFAULT_WINDOW, _DEFAULT_FRAME_BYTES, _MAX_FRAME_BYTES = 65535, 16384, 2**24 - 1
_MAX_WINDOW = 2**31 - 1

_MAX_HEADER_BYTES = 32 * 1024
_KNOWN_BLOCKS, _MAX_KNOWN_BYTES = 256, 4096
_EMPTY_TABLE = b"\x20"  # we keep no table, as a client that keeps none wants to be told
_HAS_ENDED = -1  # the window of a stream whose request is complete
_SHORT_BYTES = 1024  # a piece so short is copied: it would keep all that was read with it
_MAX_IDLE_FRAMES = 10_000  # frames that ask for nothing, in a row, before a peer is sent away
_PREFACE_S = 10.0


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class _ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Limits:
    """What a connection admits; windows are the bytes under way that nobody has read yet."""

    concurrent_streams: int = 4096
    frame_bytes: int = 1 << 20
    stream_window_bytes: int = 1 << 20
    connection_window_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        for name in ("stream_window_bytes", "connection_window_bytes"):
            if not _DEFAULT_WINDOW <= getattr(self, name) <= _MAX_WINDOW:
                raise ValueError(f"{name} must lie in 65535..2**31-1, received {self}")
        if not _DEFAULT_FRAME_BYTES <= self.frame_bytes <= _MAX_FRAME_BYTES:
            raise ValueError(f"frame_bytes must lie in 16384..2**24-1, received {self}")
        if self.concurrent_streams < 1:
            raise ValueError(f"concurrent_streams must be positive, received {self}")


@mypyc_attr(allow_interpreted_subclasses=True)
class Stream(Upload):
    """One request of a connection and its answer; whoever opens it gives meaning to what comes.

    The attributes belong to the connection. The client may go on sending as soon as what it sent
    was read, or, where the stream is `paced`, when `Connection.admit` says so; such a stream also
    counts itself what it holds.
    """

    def __init__(self, connection: "Connection", number: int, *, paced: bool = False) -> None:
        self.connection = connection
        self.number = number
        self.receive_window = connection.limits.stream_window_bytes
        self.send_window = connection.peer_window
        self.unsent: deque[tuple[Buffer, int, int]] | None = None  # payload, kind, flags of frames
        self.paced = paced

    def received(self, chunk: memoryview) -> None:
        """A piece of the body; it stays valid as long as it is referred to."""
        raise NotImplementedError

    def ended(self) -> None:
        """The request is complete."""
        raise NotImplementedError

    def aborted(self) -> None:
        """The peer has reset the stream, or has gone, before the answer was sent."""
        raise NotImplementedError

    def drained(self) -> None:
        """All that was given to `Connection.send` so far has left for the peer."""


class Envelope:
    """The constant frames of an answer: its header fields, made ready for any stream."""

    def __init__(self, *, head: Fields, trailers: Fields) -> None:
        self.head, self.trailers = stateless_block(head), stateless_block(trailers)
        opening = struct.Struct(f">IBI{len(self.head)}sIBI").pack
        closing = struct.Struct(f">IBI{len(self.trailers)}s").pack
        head_word, trailers_word = (
            len(block) << 8 | _HEADERS for block in (self.head, self.trailers)
        )

        def before(number: int, size: int) -> bytes:
            return opening(head_word, _END_HEADERS, number, self.head, size << 8, 0, number)

        def after(number: int) -> bytes:
            return closing(trailers_word, _END_HEADERS | _END_STREAM, number, self.trailers)

        self.before, self.after = before, after


OpenStream = Callable[["Connection", int, Any], Stream]


class HeaderBlocks:
    """Decodes header blocks, in the order in which they came; equal ones are decoded once.

    A block that left the dynamic table as it was means the same until the table changes: what
    `read` made of it is kept in `known` till then.
    """

    def __init__(self, read: Callable[[Fields], Any]) -> None:
        self._read = read
        self._decoder = hpack.Decoder(max_header_list_size=_MAX_HEADER_BYTES)
        self.known: dict[bytes, Any] = {}  # blocks that mean what they meant

    def decode(self, block: bytes) -> Any:
        """What `read` makes of the fields of a block that is not in `known`.

        Raises hpack.HPACKError for a malformed one.
        """
        if len(block) > _MAX_HEADER_BYTES:
            raise hpack.OversizedHeaderListError(f"a header block of {len(block)} bytes")
        size, count, newest = self._table_state()
        head = self._read(cast(Fields, self._decoder.decode(block, raw=True)))
        size_now, count_now, newest_now = self._table_state()
        if newest_now is not newest or (size_now, count_now) != (size, count):
            self.known.clear()
        elif len(block) <= _MAX_KNOWN_BYTES:
            if len(self.known) >= _KNOWN_BLOCKS:
                self.known.clear()
            self.known[block] = head
        return head

    def _table_state(self) -> tuple[int, int, object]:
        """Differs after every change: a new entry, an object of its own, comes first."""
        table = self._decoder.header_table
        entries: Any = table.dynamic_entries  # a compiled tuple type would be a copy of the entry
        return table.maxsize, len(entries), entries[0] if entries else None


def stateless_block(fields: Fields) -> bytes:
    """A header block that neither reads nor changes a dynamic table: made once, sent anywhere."""
    block: bytes = hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(name, value) for name, value in fields], huffman=False
    )
    return _EMPTY_TABLE + block


class Connection:
    """The server's side of one connection: a protocol in asyncio's sense.

    It does not inherit from asyncio.Protocol, which would keep it from being compiled to a native
    class.

    `open_stream` is called for each request with what `read_head` made of its header fields.
    """

    def __init__(
        self,
        *,
        open_stream: OpenStream,
        read_head: Callable[[Fields], Any],
        limits: Limits,
        uploads: Uploads,
        connections: set["Connection"],
    ) -> None:
        self.limits = limits
        self.uploads = uploads
        self.peer_window = _DEFAULT_WINDOW  # what a new stream may send
        self._open_stream = open_stream
        self._connections = connections
        self._blocks = HeaderBlocks(read_head)
        self._known_heads = self._blocks.known
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._rest = b""  # the beginning of a frame whose end has not come
        self._preface_is_due = True
        self._data_left = 0  # bytes of a DATA frame that have not come
        self._data_stream = self._data_flags = 0
        self._block: bytearray | None = None  # a header block to be continued
        self._block_stream = self._block_flags = 0
        self._receive_window = limits.connection_window_bytes
        self._least_window = limits.connection_window_bytes >> 1
        self._least_stream_window = limits.stream_window_bytes >> 1
        self._send_window = _DEFAULT_WINDOW
        self._blocked: OrderedDict[int, Stream] = OrderedDict()  # answers that wait for it
        self._peer_frame_bytes = _DEFAULT_FRAME_BYTES
        self._out: list[Buffer] = []
        self._flush_is_due = False
        self._idle_frames = 0
        self._leaving = False
        self.flows = asyncio.Event()  # set while the peer reads what is written
        self.flows.set()

    # --- asyncio's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the peer our limits at once; it may speak at the same time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not its subclass
        self._loop = asyncio.get_running_loop()
        self._connections.add(self)
        settings = (
            (_MAX_CONCURRENT_STREAMS, self.limits.concurrent_streams),
            (_INITIAL_WINDOW_SIZE, self.limits.stream_window_bytes),
            (_MAX_FRAME_SIZE, self.limits.frame_bytes),
            (_MAX_HEADER_LIST_SIZE, _MAX_HEADER_BYTES),
        )
        self._send(_SETTINGS, 0, 0, b"".join(_setting(*pair) for pair in settings))
        more = self.limits.connection_window_bytes - _DEFAULT_WINDOW
        if more:
            self._send(_WINDOW_UPDATE, 0, 0, _word(more))
        self._preface_timer = self._loop.call_later(_PREFACE_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Nobody waits for the open streams any more."""
        self._preface_timer.cancel()
        self._connections.discard(self)
        self._leaving = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self.uploads.release(stream)
            stream.aborted()

    def data_received(self, data: bytes) -> None:
        """Read whole frames, and DATA as far as it came."""
        try:
            if self._rest:
                data, self._rest = self._rest + data, b""
            self._read_frames(data)
        except _ConnectionFault as fault:
            self._go_away(fault.code, str(fault))

    def eof_received(self) -> None:
        """The peer sends no more: it has gone, and asyncio closes the connection."""

    def pause_writing(self) -> None:
        """A peer that does not read its answers is not read either."""
        self.flows.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.flows.set()
        self._transport.resume_reading()

    # --- what streams call ----------------------------------------------------------------------

    def answer(self, stream: Stream, *, envelope: Envelope, body: Sequence[Buffer]) -> None:
        """Send a whole answer."""
        number = stream.number
        if self._streams.pop(number, None) is None:
            return
        size = sum(map(len, body))
        self._idle_frames = 0
        if (
            size <= self._send_window
            and size <= stream.send_window
            and size <= self._peer_frame_bytes
        ):
            self._send_window -= size
            self._out += (envelope.before(number, size), *body, envelope.after(number))
            if not self._flush_is_due:
                self._flush_soon()
            return
        self._send(_HEADERS, _END_HEADERS, number, envelope.head)
        self._streams[number] = stream  # until all is sent
        stream.unsent = deque((part, _DATA, 0) for part in body)
        stream.unsent.append((envelope.trailers, _HEADERS, _END_HEADERS | _END_STREAM))
        self._send_unsent(stream)

    def refuse(self, stream: Stream, *, block: bytes, reset: bool = False) -> None:
        """Answer by one header block alone; `reset` where the request has not ended yet."""
        if self._streams.pop(stream.number, None) is None:
            return
        if stream.held_bytes:
            self.uploads.release(stream)
        self._idle_frames = 0
        self._send(_HEADERS, _END_HEADERS | _END_STREAM, stream.number, block)
        if reset:
            self._send(_RST_STREAM, 0, stream.number, _word(ErrorCode.NO_ERROR))
        self._close_if_done()

    def begin(self, stream: Stream, *, block: bytes) -> None:
        """Send the head of an answer whose body comes piece by piece."""
        if stream.number in self._streams:
            self._idle_frames = 0
            stream.unsent = deque()
            self._send(_HEADERS, _END_HEADERS, stream.number, block)

    def send(self, stream: Stream, payload: Buffer) -> None:
        """Send a piece of the body of an answer that has begun, as far as windows admit.

        The rest of it is kept till they do: who sends more waits for `drained`, and for `flows`.
        """
        if stream.unsent is not None:
            self._idle_frames = 0
            stream.unsent.append((payload, _DATA, 0))
            self._send_unsent(stream)

    def end(self, stream: Stream, *, block: bytes, reset: bool) -> None:
        """End an answer that has begun, by its trailers; `reset` where the request has not ended.

        They wait for what is unsent.
        """
        if stream.unsent is None:
            return
        stream.unsent.append((block, _HEADERS, _END_HEADERS | _END_STREAM))
        if reset:
            stream.unsent.append((_word(ErrorCode.NO_ERROR), _RST_STREAM, 0))
        self._send_unsent(stream)

    def admit(self, stream: Stream) -> None:
        """Let the client of a paced stream send as much as ever, whatever it has sent so far."""
        if 0 <= stream.receive_window < self._least_stream_window:
            self._admit(stream)

    def leave(self) -> None:
        """Take no new requests; close when the open ones are answered."""
        if not self._leaving:
            self._go_away(ErrorCode.NO_ERROR, "the server is stopping")

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # --- reading --------------------------------------------------------------------------------

    def _read_frames(self, data: bytes) -> None:
        view, position, end = memoryview(data), 0, len(data)
        if self._preface_is_due:
            position = self._read_preface(data)
            if not position:
                self._rest = data
                return
        if self._data_left:
            position = min(self._data_left, end)
            self._data_left -= position
            flags = 0 if self._data_left else self._data_flags
            self._read_data(self._data_stream, flags, view[:position])
        while end - position >= _HEADER_BYTES:
            begin = position
            word, flags, number = _read_header(data, begin)
            kind, number = word & 0xFF, number & _STREAM_BITS
            start = begin + _HEADER_BYTES
            position = start + (word >> 8)
            if kind == _DATA and not flags & _PADDED and self._block is None:
                self._check_size(kind, word >> 8)
                if position > end:  # DATA is read as it comes
                    self._data_left = position - end
                    self._data_stream, self._data_flags = number, flags
                    if start < end:
                        self._read_data(number, 0, view[start:end])
                    return
                self._read_data(number, flags, view[start:position])
            elif position > end:
                self._check_size(kind, word >> 8)
                position = begin
                break
            else:
                self._check_size(kind, word >> 8)
                self._read_frame(kind, flags, number, data[start:position])
        self._rest = data[position:]

    def _read_preface(self, data: bytes) -> int:
        """Read what a connection begins with; returns where the first frame does, 0: later."""
        if not _PREFACE.startswith(data[: len(_PREFACE)]):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected the HTTP/2 preface")
        if len(data) < len(_PREFACE) + _HEADER_BYTES:
            return 0
        word, flags, _ = _read_header(data, len(_PREFACE))
        if word & 0xFF != _SETTINGS or flags & _ACK:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS at first")
        self._preface_is_due = False
        self._preface_timer.cancel()
        return len(_PREFACE)

    def _check_size(self, kind: int, size: int) -> None:
        if size > self.limits.frame_bytes or (kind != _DATA and size > _MAX_HEADER_BYTES):
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")

    def _read_data(self, number: int, flags: int, chunk: memoryview) -> None:
        size = len(chunk)
        self._receive_window -= size
        if self._receive_window < self._least_window:
            self._widen()
        stream = self._streams.get(number)
        if stream is None:
            self._check_opened(number)
            if not size:
                self._count_idle_frame()
            return  # it was answered, or reset, before all of it came
        window = stream.receive_window = stream.receive_window - size
        if window < 0:
            self._refuse_data(window + size)
        if not flags & _END_STREAM:
            if size:
                self._keep(stream, chunk)
            else:
                self._count_idle_frame()
            return
        if size:
            stream.received(chunk)
        self._end(stream)

    def _keep(self, stream: Stream, chunk: memoryview) -> None:
        """A piece of a request that goes on."""
        size = len(chunk)
        stream.received(memoryview(bytes(chunk)) if size < _SHORT_BYTES else chunk)
        if self._streams.get(stream.number) is not stream:  # it was too much
            return
        if not stream.paced:
            try:
                held_bytes = stream.held_bytes + size + PIECE_BYTES
                self.uploads.hold(stream, held_bytes=held_bytes)
            except Overloaded as error:
                stream.give_up(error)
                return
        if stream.receive_window < self._least_stream_window:
            self._widen_stream(stream)

    def _end(self, stream: Stream) -> None:
        """A request is there as a whole."""
        stream.receive_window = _HAS_ENDED
        if stream.held_bytes and not stream.paced:
            self.uploads.release(stream)
        stream.ended()

    def _read_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind != _HEADERS or self._block is not None:
            self._check_frame(kind, number, size=len(payload))
        reader = _READERS.get(kind)
        if reader is None:  # PRIORITY means nothing any more; unknown kinds are to be ignored
            self._count_idle_frame()
        else:
            reader(self, flags, number, payload)

    def _read_padded_data(self, flags: int, number: int, payload: bytes) -> None:
        data = _without_padding(flags, payload)
        padding = len(payload) - len(data)  # it counts for the windows
        self._receive_window -= padding
        stream = self._streams.get(number)
        if stream is not None:
            stream.receive_window -= padding
        self._read_data(number, flags, memoryview(data))

    def _check_frame(self, kind: int, number: int, *, size: int) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected CONTINUATION")
        if _OF_CONNECTION.get(kind, not number) != (not number):
            text = f"a frame of type {kind} on stream {number}"
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, text)
        if _SIZES.get(kind, size) != size or (kind == _GOAWAY and size < _LEAST_GOAWAY_BYTES):
            text = f"a frame of type {kind} and {size} bytes"
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, text)

    def _check_opened(self, number: int) -> None:
        if number > self._last_stream or not number & 1:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is idle")

    def _refuse_data(self, window: int) -> None:
        """The peer sent more than it may: `window` is what was left."""
        if window < 0:
            raise _ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA behind the end of a request")
        raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")

    def _read_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _read_goaway(self, _flags: int, _number: int, _payload: bytes) -> None:
        self._leaving = True  # the client will open no more streams
        self._close_if_done()

    def _read_reset(self, _flags: int, number: int, _payload: bytes) -> None:
        self._count_idle_frame()
        self._check_opened(number)
        stream = self._streams.pop(number, None)
        if stream:
            stream.unsent = None
            self._blocked.pop(number, None)
            self.uploads.release(stream)
            stream.aborted()
        self._close_if_done()

    def _read_ping(self, flags: int, _number: int, payload: bytes) -> None:
        self._count_idle_frame()
        if not flags & _ACK:
            self._send(_PING, _ACK, 0, payload)

    def _read_headers(self, flags: int, number: int, payload: bytes) -> None:
        payload = _without_padding(flags, payload)
        if flags & _WITH_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a priority is cut off")
            payload = payload[_PRIORITY_BYTES:]
        if not flags & _END_HEADERS:
            self._block = bytearray(payload)
            self._block_stream, self._block_flags = number, flags
            return
        self._open(number, flags, payload)

    def _read_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or number != self._block_stream:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "unexpected CONTINUATION")
        self._block += payload
        if not payload:
            self._count_idle_frame()
        if len(self._block) > _MAX_HEADER_BYTES:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too long a header")
        if flags & _END_HEADERS:
            block, self._block = bytes(self._block), None
            self._open(number, self._block_flags, block)

    def _open(self, number: int, flags: int, block: bytes) -> None:
        try:
            head = self._known_heads.get(block) or self._blocks.decode(block)
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise _ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        if number <= self._last_stream:
            self._read_trailers(number, flags)
            return
        if not number & 1:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client opened stream {number}")
        self._last_stream = number
        if self._leaving or len(self._streams) >= self.limits.concurrent_streams:
            self._count_idle_frame()
            self._send(_RST_STREAM, 0, number, _word(ErrorCode.REFUSED_STREAM))
            return
        stream = self._streams[number] = self._open_stream(self, number, head)
        if flags & _END_STREAM:
            self._end(stream)

    def _read_trailers(self, number: int, flags: int) -> None:
        self._check_opened(number)
        stream = self._streams.get(number)
        if stream is None:
            self._count_idle_frame()
            return
        if not flags & _END_STREAM:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "trailers must end the stream")
        if stream.receive_window == _HAS_ENDED:
            raise _ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS behind the end of a request")
        self._end(stream)

    def _read_settings(self, flags: int, _number: int, payload: bytes) -> None:
        self._count_idle_frame()
        if len(payload) % _SETTING_BYTES or (flags & _ACK and payload):
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if flags & _ACK:
            return
        window = self.peer_window
        for key, value in _read_setting(payload):
            _check_setting(key, value)
            if key == _INITIAL_WINDOW_SIZE:
                window = value
            elif key == _MAX_FRAME_SIZE:
                self._peer_frame_bytes = value
        self._send(_SETTINGS, _ACK, 0, b"")
        more, self.peer_window = window - self.peer_window, window
        if more:
            for stream in list(self._streams.values()):
                self._widen_answer(stream, more)

    def _widen_answer(self, stream: Stream, more: int) -> None:
        """The peer admits so many more bytes of a stream's answer; or fewer."""
        stream.send_window += more
        if stream.send_window > _MAX_WINDOW:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window out of range")
        if stream.unsent:
            self._send_unsent(stream)

    def _read_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        more = _read_word(payload)[0] & _STREAM_BITS
        if not more:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE by nothing")
        if number:
            self._check_opened(number)
            stream = self._streams.get(number)
            if stream is None or not stream.unsent:
                self._count_idle_frame()
            if stream is not None:
                self._widen_answer(stream, more)
            return
        self._send_window += more
        if self._send_window > _MAX_WINDOW:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window out of range")
        while self._blocked and self._send_window:
            _, stream = self._blocked.popitem(last=False)
            self._send_unsent(stream)

    def _widen(self) -> None:
        """Let the peer send more on the connection."""
        if self._receive_window < 0:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")
        more = self.limits.connection_window_bytes - self._receive_window
        self._send(_WINDOW_UPDATE, 0, 0, _word(more))
        self._receive_window += more

    def _widen_stream(self, stream: Stream) -> None:
        """Let the peer send more on a stream that was not answered meanwhile."""
        if stream.receive_window < 0:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")
        if not stream.paced:
            self._admit(stream)

    def _admit(self, stream: Stream) -> None:
        if stream.number in self._streams:
            more = self.limits.stream_window_bytes - stream.receive_window
            self._send(_WINDOW_UPDATE, 0, stream.number, _word(more))
            stream.receive_window += more

    def _count_idle_frame(self) -> None:
        """A peer that keeps us busy without asking for anything is sent away."""
        self._idle_frames += 1
        if self._idle_frames > _MAX_IDLE_FRAMES:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames without a request")

    # --- writing --------------------------------------------------------------------------------

    def _send(self, kind: int, flags: int, number: int, payload: Buffer) -> None:
        self._out += (_header(len(payload) << 8 | kind, flags, number), payload)
        if not self._flush_is_due:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._flush_is_due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        out, self._out = self._out, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(out))
            self._close_if_done()

    def _send_unsent(self, stream: Stream) -> None:
        """Send as much of an answer as the peer's windows admit."""
        has_ended = False
        while stream.unsent:
            payload, kind, flags = stream.unsent[0]
            if kind == _DATA:
                size = min(len(payload), self._peer_frame_bytes)
                size = min(size, self._send_window, stream.send_window)
                if size <= 0 < len(payload):
                    if stream.send_window > 0:
                        self._blocked[stream.number] = stream
                    return
                self._send_window -= size
                stream.send_window -= size
                self._send(_DATA, 0, stream.number, payload[:size])
                if size < len(payload):
                    stream.unsent[0] = (memoryview(payload)[size:], kind, flags)
                    continue
            else:
                self._send(kind, flags, stream.number, payload)
                has_ended = has_ended or bool(flags & _END_STREAM)
            stream.unsent.popleft()
        if not has_ended:
            stream.drained()
            return
        stream.unsent = None
        self._streams.pop(stream.number, None)

    def _go_away(self, code: ErrorCode, text: str) -> None:
        self._leaving = True
        payload = _word(self._last_stream) + _word(code) + text.encode("ascii", "replace")[:200]
        self._send(_GOAWAY, 0, 0, payload)
        if code is not ErrorCode.NO_ERROR:
            self._flush()
            self._transport.close()

    def _close_if_done(self) -> None:
        if self._leaving and not self._streams and not self._out:
            self._transport.close()


_READERS: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    0x0: Connection._read_padded_data,
    0x1: Connection._read_headers,
    0x3: Connection._read_reset,
    0x4: Connection._read_settings,
    0x5: Connection._read_push_promise,
    0x6: Connection._read_ping,
    0x7: Connection._read_goaway,
    0x8: Connection._read_window_update,
    0x9: Connection._read_continuation,
}


def _check_setting(key: int, value: int) -> None:
    if key == _INITIAL_WINDOW_SIZE and value > _MAX_WINDOW:
        raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window out of range")
    if key == _MAX_FRAME_SIZE and not _DEFAULT_FRAME_BYTES <= value <= _MAX_FRAME_BYTES:
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame size out of range")
    if key == _ENABLE_PUSH and value > 1:
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH out of range")


def _without_padding(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
