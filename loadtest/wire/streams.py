"""The requests of one HTTP/2 connection on their way out, within what the peer allows."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtest.wire import frames as http2
from loadtest.wire.ledger import (
    ANSWERED,
    GAVE_UP,
    LOST,
    NEVER_SENT,
    UNANSWERED,
    Ledger,
)

_AGAIN = -1  # stands for a request that another stream carries now


@dataclass
class _Unfinished:
    """A request whose body waits for a window."""

    stream: int
    body: bytes
    window_bytes: int
    sent_bytes: int = 0


class Streams:
    """Opens a stream for each request, once flow control and the number of streams permit.

    There is a call for each deadline class. What is to be sent goes to `write`, as many requests at
    once as there are.
    """

    def __init__(
        self,
        calls: Sequence[http2.Call],
        *,
        ledger: Ledger,
        authority: str,
        write: Callable[[bytes], None],
    ) -> None:
        self._ledger = ledger
        self._prepared = [http2.Prepared(call, authority=authority) for call in calls]
        self._write = write
        self._requests: list[int] = []  # of stream 1, 3, 5, ...
        self.has_data = bytearray()  # of the same: whether a message has come
        self._sent: list[deque[int]] = [deque() for _ in calls]  # streams by class, oldest first
        self._waiting: deque[int] = deque()
        self._unfinished: dict[int, _Unfinished] = {}
        self._open = 0
        self._max_open = http2.LARGEST_WINDOW_BYTES
        self._max_frame_bytes = self._at_once_bytes = http2.DEFAULT_FRAME_BYTES
        self._window_bytes = self._initial_window_bytes = http2.DEFAULT_WINDOW_BYTES
        self.answered = 0
        self.paused = False
        self._over = False

    def send(self, requests: Iterable[int]) -> None:
        """Send these requests, or have them wait for windows and streams."""
        self._waiting.extend(requests)
        self.flush()

    def flush(self) -> None:
        """Send what may be sent."""
        if self._over:
            return self._fail_waiting()
        if self.paused or not (self._waiting or self._unfinished):
            return None
        parts: list[bytes] = []
        now_ns, waiting = self._ledger.now_ns(), self._waiting
        if self._unfinished:
            self._continue(tuple(self._unfinished.values()), parts=parts)
        while waiting and self._open < self._max_open and self._window_bytes > 0:
            self._begin(waiting.popleft(), parts=parts, now_ns=now_ns)
        self._write(b"".join(parts))
        return None

    def _begin(self, request: int, *, parts: list[bytes], now_ns: int) -> None:
        """Open a stream for a request, unless its deadline has passed while it was waiting."""
        ledger = self._ledger
        kind = ledger.kinds[request]
        prepared = self._prepared[kind]
        stream = 2 * len(self._requests) + 1
        if deadline_ns := prepared.deadline_ns:
            if now_ns - ledger.intended_ns[request] > deadline_ns:
                ledger.end(request, status=NEVER_SENT, now_ns=now_ns)
                return
            self._sent[kind].append(stream)
        self._requests.append(request)
        self.has_data.append(0)
        self._open += 1
        ledger.sent_ns[request] = now_ns
        size = prepared.size
        if size <= self._window_bytes and size <= self._at_once_bytes:
            self._window_bytes -= size
            number = stream.to_bytes(4, "big")
            parts += (prepared.opening, number, prepared.joint, number, prepared.body)
            return
        parts.append(
            http2.frame(
                http2.HEADERS, flags=http2.END_HEADERS, stream=stream, payload=prepared.block
            )
        )
        body = _Unfinished(stream, prepared.body, self._initial_window_bytes)
        self._unfinished[stream] = body
        self._continue((body,), parts=parts)

    def _continue(self, bodies: Iterable[_Unfinished], *, parts: list[bytes]) -> None:
        """As much of these bodies as the windows allow."""
        for body in bodies:
            while (left := len(body.body) - body.sent_bytes) > 0:
                size = min(left, self._max_frame_bytes, self._window_bytes, body.window_bytes)
                if size <= 0:
                    break
                piece = body.body[body.sent_bytes : body.sent_bytes + size]
                flags = http2.END_STREAM if size == left else 0
                parts.append(
                    http2.frame(http2.DATA, flags=flags, stream=body.stream, payload=piece)
                )
                body.sent_bytes += size
                body.window_bytes -= size
                self._window_bytes -= size
            else:
                del self._unfinished[body.stream]

    def give_up(self) -> None:
        """Cancel the streams whose deadline has passed, as clients of gRPC do."""
        ledger, parts = self._ledger, list[bytes]()
        now_ns = ledger.now_ns()
        for streams, prepared in zip(self._sent, self._prepared, strict=True):
            while streams:
                request = self._requests[streams[0] >> 1]
                if request != _AGAIN and ledger.statuses[request] == UNANSWERED:
                    if now_ns - ledger.sent_ns[request] <= prepared.deadline_ns:
                        break
                    parts.append(
                        http2.number_frame(http2.RST_STREAM, stream=streams[0], number=http2.CANCEL)
                    )
                    self.end(streams[0], status=GAVE_UP, now_ns=now_ns)
                streams.popleft()
        while self._waiting and self._too_late(self._waiting[0], now_ns=now_ns):
            ledger.end(self._waiting.popleft(), status=NEVER_SENT, now_ns=now_ns)
        self._write(b"".join(parts))
        self.flush()

    def _too_late(self, request: int, *, now_ns: int) -> bool:
        deadline_ns = self._prepared[self._ledger.kinds[request]].deadline_ns
        return 0 < deadline_ns < now_ns - self._ledger.intended_ns[request]

    def apply(self, settings: dict[int, int]) -> None:
        """What the peer allows from now on."""
        self._max_open = settings.get(http2.MAX_STREAMS, self._max_open)
        self._max_frame_bytes = settings.get(http2.MAX_FRAME_SIZE, self._max_frame_bytes)
        window_bytes = settings.get(http2.INITIAL_WINDOW_SIZE, self._initial_window_bytes)
        for body in self._unfinished.values():
            body.window_bytes += window_bytes - self._initial_window_bytes
        self._initial_window_bytes = window_bytes
        self._at_once_bytes = min(window_bytes, self._max_frame_bytes)

    def widen(self, stream: int, *, by_bytes: int) -> None:
        """The peer takes so many bytes more, of one stream or (0) of all together."""
        if not stream:
            self._window_bytes += by_bytes
        elif body := self._unfinished.get(stream):
            body.window_bytes += by_bytes

    def end(self, stream: int, *, status: int, now_ns: int) -> None:
        """The end of a stream; what comes after it (we may have given up) counts no more."""
        ledger, request = self._ledger, self._requests[stream >> 1]
        if request == _AGAIN or ledger.statuses[request] != UNANSWERED:
            return
        ledger.end(request, status=status, now_ns=now_ns)
        self._open -= 1
        if status == ANSWERED:
            self.answered += 1
        if self._unfinished:
            self._unfinished.pop(stream, None)

    def refused(self, stream: int) -> None:
        """The peer has not looked at the request; it is sent again, as clients of gRPC do.

        That happens to whoever uses all streams: grpcio counts one a little beyond its end.
        """
        request = self._requests[stream >> 1]
        if request != _AGAIN and self._ledger.statuses[request] == UNANSWERED:
            self._requests[stream >> 1] = _AGAIN
            self._open -= 1
            self._unfinished.pop(stream, None)
            self._waiting.appendleft(request)

    def kind_of(self, stream: int) -> int | None:
        """The class of the request on a stream; None for one that another stream carries now."""
        request = self._requests[stream >> 1]
        return None if request == _AGAIN else self._ledger.kinds[request]

    def fail(self, *, after_stream: int) -> None:
        """The server will not answer the streams after this one, nor any that is not open yet."""
        self._over = True
        now_ns = self._ledger.now_ns()
        for number in range((after_stream + 1) >> 1, len(self._requests)):
            self.end(2 * number + 1, status=LOST, now_ns=now_ns)
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._ledger.end(self._waiting.popleft(), status=LOST, now_ns=self._ledger.now_ns())
