"""The receiving half of our HTTP/2: requests, from their frames to their streams."""

from collections.abc import Callable
from typing import Any, Final

import hpack

from ridgeline.errors import Overloaded
from serving.protocol.http2_frames import (
    END_HEADERS,
    END_STREAM,
    PRIORITY_BYTES,
    RST_STREAM,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFault,
    ErrorCode,
    without_padding,
    word,
)
from serving.protocol.http2_headers import MAX_HEADER_BYTES, Fields, HeaderBlocks
from serving.protocol.http2_sending import Limits, SendingSide, Stream
from serving.protocol.uploads import PIECE_BYTES, Uploads

_HAS_ENDED: Final = -1  # the window of a stream whose request is complete
_SHORT_BYTES: Final = 1024  # a piece so short is copied: it would keep all that was read with it
_MAX_IDLE_FRAMES: Final = 10_000  # in a row, before a peer is sent away

OpenStream = Callable[[SendingSide, int, Any, memoryview | None], Stream | None]


class ReceivingSide(SendingSide):
    """What a connection makes of the frames of requests.

    `open_stream` is called for each request with what `read_head` made of its header fields, and
    with the whole body where that came at once. The stream is told of its body in any case; only
    with a body may there be none, where the request was answered by `answer_at_once` or
    `refuse_at_once`.
    """

    def __init__(
        self,
        *,
        open_stream: OpenStream,
        read_head: Callable[[Fields], Any],
        limits: Limits,
        uploads: Uploads,
    ) -> None:
        super().__init__(limits=limits, uploads=uploads)
        self._open_stream = open_stream
        self._blocks = HeaderBlocks(read_head)
        self._known_heads = self._blocks.known
        self._last_stream = 0
        self._block: bytearray | None = None  # a header block to be continued
        self._block_stream = self._block_flags = 0
        self._receive_window = limits.connection_window_bytes
        self._least_window = limits.connection_window_bytes >> 1

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
        if not flags & END_STREAM:
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

    def _read_padded_data(self, flags: int, number: int, payload: bytes) -> None:
        data = without_padding(flags, payload)
        padding = len(payload) - len(data)  # it counts for the windows
        self._receive_window -= padding
        stream = self._streams.get(number)
        if stream is not None:
            stream.receive_window -= padding
        self._read_data(number, flags, memoryview(data))

    def _refuse_data(self, window: int) -> None:
        """The peer sent more than it may: `window` is what was left."""
        if window < 0:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA behind the end of a request")
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")

    def _read_headers(self, flags: int, number: int, payload: bytes) -> None:
        payload = without_padding(flags, payload)
        if flags & WITH_PRIORITY:
            if len(payload) < PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a priority is cut off")
            payload = payload[PRIORITY_BYTES:]
        if not flags & END_HEADERS:
            if not number:  # a whole block on it is refused, since it opens no stream
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
            self._block = bytearray(payload)
            self._block_stream, self._block_flags = number, flags
            return
        self._open(number, flags, payload)

    def _read_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or number != self._block_stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "unexpected CONTINUATION")
        self._block += payload
        if not payload:
            self._count_idle_frame()
        if len(self._block) > MAX_HEADER_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too long a header")
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._open(number, self._block_flags, block)

    def _open(self, number: int, flags: int, block: bytes) -> None:
        try:
            head = self._known_heads.get(block) or self._blocks.decode(block)
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        if number <= self._last_stream:
            self._read_trailers(number, flags)
            return
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client opened stream {number}")
        self._last_stream = number
        if self._leaving or len(self._streams) >= self.limits.concurrent_streams:
            self._count_idle_frame()
            self._send(RST_STREAM, 0, number, word(ErrorCode.REFUSED_STREAM))
            return
        stream = self._open_stream(self, number, head, None)
        if stream is not None:
            self._streams[number] = stream
            if flags & END_STREAM:
                self._end(stream)

    def _open_whole(self, number: int, block: bytes, body: memoryview) -> bool:
        """Open a request that is there as a whole; False where something is unusual about it."""
        size = len(body)
        head = self._known_heads.get(block)
        if (
            head is None
            or number <= self._last_stream
            or not number & 1
            or not 0 < size <= self.limits.stream_window_bytes
            or self._leaving
            or len(self._streams) >= self.limits.concurrent_streams
        ):
            return False
        self._last_stream = number
        self._receive_window -= size
        if self._receive_window < self._least_window:
            self._widen()
        stream = self._open_stream(self, number, head, body)
        if stream is not None:
            self._streams[number] = stream
            stream.received(body)
            self._end(stream)
        return True

    def _read_trailers(self, number: int, flags: int) -> None:
        self._check_opened(number)
        stream = self._streams.get(number)
        if stream is None:
            self._count_idle_frame()
            return
        if not flags & END_STREAM:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "trailers must end the stream")
        if stream.receive_window == _HAS_ENDED:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS behind the end of a request")
        self._end(stream)

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

    def _check_opened(self, number: int) -> None:
        if number > self._last_stream or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is idle")

    def _widen(self) -> None:
        """Let the peer send more on the connection."""
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")
        more = self.limits.connection_window_bytes - self._receive_window
        self._send(WINDOW_UPDATE, 0, 0, word(more))
        self._receive_window += more

    def _widen_stream(self, stream: Stream) -> None:
        """Let the peer send more on a stream that was not answered meanwhile."""
        if stream.receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window")
        if not stream.paced:
            self._admit(stream)

    def _count_idle_frame(self) -> None:
        """A peer that keeps us busy without asking for anything is sent away."""
        self._idle_frames += 1
        if self._idle_frames > _MAX_IDLE_FRAMES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames without a request")
