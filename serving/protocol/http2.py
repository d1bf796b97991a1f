"""HTTP/2 (RFC 9113) on asyncio, for few connections that carry many small requests.

No library does this at the cost of a few microseconds: those in Python take hundreds per request,
and a native one pays for its own threads and for every ASGI event. Header compression, the part
with state and tables, is the library `hpack`; blocks that leave its table as it was are remembered.

Here bytes become frames. What these ask for stands in `http2_receiving`, how it is answered in
`http2_sending`. Requests are handed on as views of the bytes that were read.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from serving.protocol.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING_BYTES,
    SETTINGS,
    STREAM_BITS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    check_frame,
    check_setting,
    read_header,
    read_settings,
    read_word,
    setting,
    word,
)
from serving.protocol.http2_headers import MAX_HEADER_BYTES, Fields
from serving.protocol.http2_receiving import OpenStream, ReceivingSide
from serving.protocol.http2_sending import Limits
from serving.protocol.uploads import Uploads

_PREFACE_S = 10.0


class Connection(ReceivingSide):
    """The server's side of one connection: a protocol in asyncio's sense.

    It does not inherit from asyncio.Protocol, which would keep it from being compiled to a native
    class.
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
        super().__init__(
            open_stream=open_stream, read_head=read_head, limits=limits, uploads=uploads
        )
        self._connections = connections
        self._rest = b""  # the beginning of a frame whose end has not come
        self._preface_is_due = True
        self._data_left = 0  # bytes of a DATA frame that have not come
        self._data_stream = self._data_flags = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the peer our limits at once; it may speak at the same time."""
        self._attach(cast(asyncio.Transport, transport))  # uvloop's is not its subclass
        self._connections.add(self)
        settings = (
            (MAX_CONCURRENT_STREAMS, self.limits.concurrent_streams),
            (INITIAL_WINDOW_SIZE, self.limits.stream_window_bytes),
            (MAX_FRAME_SIZE, self.limits.frame_bytes),
            (MAX_HEADER_LIST_SIZE, MAX_HEADER_BYTES),
        )
        self._send(SETTINGS, 0, 0, b"".join(setting(*pair) for pair in settings))
        more = self.limits.connection_window_bytes - DEFAULT_WINDOW
        if more:
            self._send(WINDOW_UPDATE, 0, 0, word(more))
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
        except ConnectionFault as fault:
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

    def leave(self) -> None:
        """Take no new requests; close when the open ones are answered."""
        if not self._leaving:
            self._go_away(ErrorCode.NO_ERROR, "the server is stopping")

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # --- from bytes to frames ---------------------------------------------------------------------

    def _read_frames(self, data: bytes) -> None:
        view, position, end = memoryview(data), 0, len(data)
        if self._preface_is_due:
            position = self._read_preface(data)
            if not position:
                self._rest = data
                return
        if self._data_left:
            position = self._read_more_data(view)
        while end - position >= HEADER_BYTES:
            begin = position
            word, flags, number = read_header(data, begin)
            kind, number = word & 0xFF, number & STREAM_BITS
            start = begin + HEADER_BYTES
            position = start + (word >> 8)
            whole = self._read_whole(number, flags, data, start, position) if kind == HEADERS else 0
            if whole:
                position = whole
                continue
            if kind == DATA and not flags & PADDED and self._block is None:
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

    def _read_more_data(self, view: memoryview) -> int:
        """Go on with a frame of DATA that began before; returns where it ends, or what there is."""
        size = min(self._data_left, len(view))
        self._data_left -= size
        flags = 0 if self._data_left else self._data_flags
        self._read_data(self._data_stream, flags, view[:size])
        return size

    def _read_whole(self, number: int, flags: int, data: bytes, start: int, stop: int) -> int:
        """Read a request that came as a whole: header fields in start..stop, one frame of DATA.

        Most do. Returns where it ends; 0 where it is another one, or needs a closer look.
        """
        begin = stop + HEADER_BYTES
        if flags != END_HEADERS or begin > len(data) or self._block is not None:
            return 0
        word, data_flags, same = read_header(data, stop)
        after = begin + (word >> 8)
        if word & 0xFF != DATA or data_flags != END_STREAM or same != number or after > len(data):
            return 0
        if after - begin > self.limits.frame_bytes:
            return 0
        opened = self._open_whole(number, data[start:stop], memoryview(data)[begin:after])
        return after if opened else 0

    def _read_preface(self, data: bytes) -> int:
        """Read what a connection begins with; returns where the first frame does, 0: later."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected the HTTP/2 preface")
        if len(data) < len(PREFACE) + HEADER_BYTES:
            return 0
        word, flags, _ = read_header(data, len(PREFACE))
        if word & 0xFF != SETTINGS or flags & ACK:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS at first")
        self._preface_is_due = False
        self._preface_timer.cancel()
        return len(PREFACE)

    def _check_size(self, kind: int, size: int) -> None:
        if size > self.limits.frame_bytes or (kind != DATA and size > MAX_HEADER_BYTES):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")

    def _read_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind != HEADERS or self._block is not None:
            if self._block is not None and kind != CONTINUATION:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected CONTINUATION")
            check_frame(kind, number, size=len(payload))
        reader = _READERS.get(kind)
        if reader is None:  # PRIORITY means nothing any more; unknown kinds are to be ignored
            self._count_idle_frame()
        else:
            reader(self, flags, number, payload)

    # --- frames that speak of the connection ------------------------------------------------------

    def _read_settings(self, flags: int, _number: int, payload: bytes) -> None:
        self._count_idle_frame()
        if len(payload) % SETTING_BYTES or (flags & ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if flags & ACK:
            return
        window = self.peer_window
        for key, value in read_settings(payload):
            check_setting(key, value)
            if key == INITIAL_WINDOW_SIZE:
                window = value
            elif key == MAX_FRAME_SIZE:
                self._peer_frame_bytes = value
        self._send(SETTINGS, ACK, 0, b"")
        more, self.peer_window = window - self.peer_window, window
        if more:
            for stream in list(self._streams.values()):
                self._widen_answer(stream, more)

    def _read_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        more = read_word(payload)[0] & STREAM_BITS
        if not more:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE by nothing")
        if number:
            self._check_opened(number)
            stream = self._streams.get(number)
            if stream is None or not stream.unsent:
                self._count_idle_frame()
            if stream is not None:
                self._widen_answer(stream, more)
            return
        self._widen_answers(more)

    def _read_ping(self, flags: int, _number: int, payload: bytes) -> None:
        self._count_idle_frame()
        if not flags & ACK:
            self._send(PING, ACK, 0, payload)

    def _read_goaway(self, _flags: int, _number: int, _payload: bytes) -> None:
        self._leaving = True  # the client will open no more streams
        self._close_if_done()

    def _read_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _go_away(self, code: ErrorCode, text: str) -> None:
        self._leaving = True
        payload = word(self._last_stream) + word(code) + text.encode("ascii", "replace")[:200]
        self._send(GOAWAY, 0, 0, payload)
        if code is not ErrorCode.NO_ERROR:
            self._flush()
            self._transport.close()


_READERS: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    DATA: Connection._read_padded_data,
    HEADERS: Connection._read_headers,
    RST_STREAM: Connection._read_reset,
    SETTINGS: Connection._read_settings,
    PUSH_PROMISE: Connection._read_push_promise,
    PING: Connection._read_ping,
    GOAWAY: Connection._read_goaway,
    WINDOW_UPDATE: Connection._read_window_update,
    CONTINUATION: Connection._read_continuation,
}
