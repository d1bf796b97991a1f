"""The sending half of our HTTP/2: answers, as far as the peer's windows admit them.

What is sent in one turn of the event loop leaves in one write.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from serving.protocol.http2_frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    RST_STREAM,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    header,
    word,
)
from serving.protocol.http2_headers import Envelope
from serving.protocol.uploads import Upload, Uploads

Buffer = bytes | memoryview


@dataclass(frozen=True)
class Limits:
    """What a connection admits; windows are the bytes under way that nobody has read yet."""

    concurrent_streams: int = 4096
    frame_bytes: int = 1 << 20
    stream_window_bytes: int = 1 << 20
    connection_window_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        for name in ("stream_window_bytes", "connection_window_bytes"):
            if not DEFAULT_WINDOW <= getattr(self, name) <= MAX_WINDOW:
                raise ValueError(f"{name} must lie in 65535..2**31-1, received {self}")
        if not DEFAULT_FRAME_BYTES <= self.frame_bytes <= MAX_FRAME_BYTES:
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

    def __init__(self, connection: "SendingSide", number: int, *, paced: bool = False) -> None:
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


class SendingSide:
    """What a connection sends, and what its streams ask it to.

    `uploads` are the requests of all connections that are on their way.
    """

    def __init__(self, *, limits: Limits, uploads: Uploads) -> None:
        self.limits = limits
        self.uploads = uploads
        self.peer_window = DEFAULT_WINDOW  # what a new stream may send
        self._streams: dict[int, Stream] = {}
        self._least_stream_window = limits.stream_window_bytes >> 1
        self._send_window = DEFAULT_WINDOW
        self._blocked: OrderedDict[int, Stream] = OrderedDict()  # answers that wait for it
        self._peer_frame_bytes = DEFAULT_FRAME_BYTES
        self._out: list[Buffer] = []
        self._flush_is_due = False
        self._idle_frames = 0  # that ask for nothing, in a row
        self._leaving = False
        self.flows = asyncio.Event()  # set while the peer reads what is written
        self.flows.set()

    def _attach(self, transport: asyncio.Transport) -> None:
        """Write to that transport from now on."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    # --- what streams call ----------------------------------------------------------------------

    def answer(self, stream: Stream, *, envelope: Envelope, body: Sequence[Buffer]) -> None:
        """Send a whole answer."""
        number = stream.number
        if self._streams.pop(number, None) is None:
            return
        size = sum(map(len, body))
        self._idle_frames = 0
        if size <= stream.send_window and self.admits(size):
            self.answer_at_once(number, envelope=envelope, body=body, size=size)
            return
        self._send(HEADERS, END_HEADERS, number, envelope.head)
        self._streams[number] = stream  # until all is sent
        stream.unsent = deque((part, DATA, 0) for part in body)
        stream.unsent.append((envelope.trailers, HEADERS, END_HEADERS | END_STREAM))
        self._send_unsent(stream)

    def admits(self, size: int) -> bool:
        """Whether the peer takes so many bytes in one frame, as far as the connection goes."""
        return size <= self._send_window and size <= self._peer_frame_bytes

    def answer_at_once(
        self, number: int, *, envelope: Envelope, body: Sequence[Buffer], size: int
    ) -> None:
        """Send a whole answer, of a size that the peer admits, on a stream that is not open.

        It need not have been: a request may be answered before it becomes a stream.
        """
        self._idle_frames = 0
        self._send_window -= size
        self._out += (envelope.before(number, size), *body, envelope.after(number))
        if not self._flush_is_due:
            if self._streams:
                self._flush_soon()
            else:  # nothing is to come that could leave with it
                self._flush()

    def refuse(self, stream: Stream, *, block: bytes, reset: bool = False) -> None:
        """Answer by one header block alone; `reset` where the request has not ended yet."""
        if self._streams.pop(stream.number, None) is None:
            return
        if stream.held_bytes:
            self.uploads.release(stream)
        self.refuse_at_once(stream.number, block=block)
        if reset:
            self._send(RST_STREAM, 0, stream.number, word(ErrorCode.NO_ERROR))
        self._close_if_done()

    def refuse_at_once(self, number: int, *, block: bytes) -> None:
        """Refuse a request for which no stream was opened."""
        self._idle_frames = 0
        self._send(HEADERS, END_HEADERS | END_STREAM, number, block)

    def begin(self, stream: Stream, *, block: bytes) -> None:
        """Send the head of an answer whose body comes piece by piece."""
        if stream.number in self._streams:
            self._idle_frames = 0
            stream.unsent = deque()
            self._send(HEADERS, END_HEADERS, stream.number, block)

    def send(self, stream: Stream, payload: Buffer) -> None:
        """Send a piece of the body of an answer that has begun, as far as windows admit.

        The rest of it is kept till they do: who sends more waits for `drained`, and for `flows`.
        """
        if stream.unsent is not None:
            self._idle_frames = 0
            stream.unsent.append((payload, DATA, 0))
            self._send_unsent(stream)

    def end(self, stream: Stream, *, block: bytes, reset: bool) -> None:
        """End an answer that has begun, by its trailers; `reset` where the request has not ended.

        They wait for what is unsent.
        """
        if stream.unsent is None:
            return
        stream.unsent.append((block, HEADERS, END_HEADERS | END_STREAM))
        if reset:
            stream.unsent.append((word(ErrorCode.NO_ERROR), RST_STREAM, 0))
        self._send_unsent(stream)

    def admit(self, stream: Stream) -> None:
        """Let the client of a paced stream send as much as ever, whatever it has sent so far."""
        if 0 <= stream.receive_window < self._least_stream_window:
            self._admit(stream)

    def _admit(self, stream: Stream) -> None:
        if stream.number in self._streams:
            more = self.limits.stream_window_bytes - stream.receive_window
            self._send(WINDOW_UPDATE, 0, stream.number, word(more))
            stream.receive_window += more

    # --- writing --------------------------------------------------------------------------------

    def _send(self, kind: int, flags: int, number: int, payload: Buffer) -> None:
        self._out += (header(len(payload) << 8 | kind, flags, number), payload)
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
            if kind == DATA:
                size = min(len(payload), self._peer_frame_bytes)
                size = min(size, self._send_window, stream.send_window)
                if size <= 0 < len(payload):
                    if stream.send_window > 0:
                        self._blocked[stream.number] = stream
                    return
                self._send_window -= size
                stream.send_window -= size
                self._send(DATA, 0, stream.number, payload[:size])
                if size < len(payload):
                    stream.unsent[0] = (memoryview(payload)[size:], kind, flags)
                    continue
            else:
                self._send(kind, flags, stream.number, payload)
                has_ended = has_ended or bool(flags & END_STREAM)
            stream.unsent.popleft()
        if not has_ended:
            stream.drained()
            return
        stream.unsent = None
        self._streams.pop(stream.number, None)

    def _widen_answer(self, stream: Stream, more: int) -> None:
        """The peer admits so many more bytes of a stream's answer; or fewer."""
        stream.send_window += more
        if stream.send_window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window out of range")
        if stream.unsent:
            self._send_unsent(stream)

    def _widen_answers(self, more: int) -> None:
        """The peer admits so many more bytes of all answers together."""
        self._send_window += more
        if self._send_window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window out of range")
        while self._blocked and self._send_window:
            _, stream = self._blocked.popitem(last=False)
            self._send_unsent(stream)

    def _close_if_done(self) -> None:
        if self._leaving and not self._streams and not self._out:
            self._transport.close()
