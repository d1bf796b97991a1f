"""HTTP/1.1 over keep-alive connections, one request at a time on each."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httptools

from loadtest.wire.ledger import ANSWERED, LOST, MALFORMED, NEVER_SENT, Ledger

_OK = 200  # of http.HTTPStatus, whose members compare slowly


@dataclass(frozen=True)
class Post:
    """A POST of a body, or a GET where there is none. The deadline binds only the client."""

    path: str
    message: bytes
    deadline_ns: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self, host: str) -> bytes:
        """The request as it is sent."""
        method = "POST" if self.message else "GET"
        head = f"{method} {self.path} HTTP/1.1\r\nHost: {host}\r\n"
        if self.message:
            size = len(self.message)
            head += f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{head}\r\n".encode("ascii") + self.message


class Http1Line:
    """`connections` connections as one way to the server. A lost one is opened again.

    A request for which none is free waits, and is given up at its deadline; once sent, it is waited
    for. `progressed(line, answered)` is called after each answer.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        *,
        ledger: Ledger,
        address: tuple[str, int],
        connections: int,
        progressed: Callable[["Http1Line", int], None],
    ) -> None:
        self.ledger = ledger
        self.deadlines_ns = [post.deadline_ns for post in posts]
        self.requests = [post.to_bytes("{}:{}".format(*address)) for post in posts]
        self._address, self._count, self._progressed = address, connections, progressed
        self._free: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def open(self) -> bool:
        """Whether it takes requests."""
        return bool(self._all or self._opening) and not self._closed

    async def connect(self) -> None:
        """Open all connections. Raises OSError."""
        for _ in range(self._count):
            await self._connect()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
        self._all.add(connection)
        self.released(connection, answered=0)

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except OSError:
            if len(self._opening) == 1 and not self._all:  # this was the last hope
                self._fail_waiting()

    def send(self, requests: Iterable[int]) -> None:
        """Send these on the free connections; the others wait."""
        self._waiting.extend(requests)
        if self.open:
            while self._free and (request := self._next()) is not None:
                self._free.pop().send(request)
        else:
            self._fail_waiting()

    def _next(self) -> int | None:
        """The next request whose deadline has not passed; those that come before it are noted."""
        ledger = self.ledger
        now_ns = ledger.now_ns()
        while self._waiting:
            request = self._waiting.popleft()
            deadline_ns = self.deadlines_ns[ledger.kinds[request]]
            if not deadline_ns or now_ns - ledger.intended_ns[request] <= deadline_ns:
                return request
            ledger.end(request, status=NEVER_SENT, now_ns=now_ns)
        return None

    def released(self, connection: "_Connection", *, answered: int) -> None:
        """A connection has nothing to do."""
        request = self._next()
        if request is not None:
            connection.send(request)
        else:
            self._free.append(connection)
        self._progressed(self, answered)

    def lost(self, connection: "_Connection") -> None:
        """A connection was closed by the server; another takes its place."""
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self._closed:
            task = asyncio.get_running_loop().create_task(self._reconnect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._progressed(self, 0)

    def give_up(self) -> None:
        """Drop the waiting requests whose deadline has passed, where they are the next to go."""
        request = self._next()
        if request is not None:
            self._waiting.appendleft(request)
        if not self.open:
            self._fail_waiting()

    def close(self) -> None:
        """Close all connections; what is under way stays unanswered."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        for connection in tuple(self._all):
            connection.close()

    def _fail_waiting(self) -> None:
        while self._waiting:
            self.ledger.end(self._waiting.popleft(), status=LOST, now_ns=self.ledger.now_ns())


class _Connection(asyncio.Protocol):
    """One connection, and the request that is under way on it."""

    def __init__(self, line: Http1Line) -> None:
        self._line = line
        self._request: int | None = None
        self._complete = self._stays_open = False
        self._body = b""
        if line.ledger.answers is not None:
            self.on_body = self._take  # looked for by the parser; without it, bodies cost nothing
        self._parser = httptools.HttpResponseParser(self)

    def _take(self, data: bytes) -> None:
        self._body += data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: int) -> None:
        ledger = self._line.ledger
        self._request, self._complete = request, False
        ledger.sent_ns[request] = ledger.now_ns()
        self._transport.write(self._line.requests[ledger.kinds[request]])

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(MALFORMED)
            self._transport.abort()
            return
        if self._complete and self._request is not None:
            status = self._parser.get_status_code()
            if self._line.ledger.answers is not None:
                self._keep(status)
            self._end(ANSWERED if status == _OK else status)
            if self._stays_open:
                self._line.released(self, answered=int(status == _OK))
            else:
                self._transport.abort()

    def _keep(self, status: int) -> None:
        """What was answered, while the request is still known."""
        ledger, body, self._body = self._line.ledger, self._body, b""
        if status == _OK and self._request is not None and ledger.answers is not None:
            ledger.answers.note(ledger.kinds[self._request], body)

    def on_message_complete(self) -> None:
        self._complete = True
        self._stays_open = self._parser.should_keep_alive()  # known only here

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._request is not None:
            self._end(LOST)
        self._line.lost(self)

    def close(self) -> None:
        self._request = None  # it stays unanswered
        self._transport.abort()

    def _end(self, status: int) -> None:
        if self._request is not None:
            ledger = self._line.ledger
            ledger.end(self._request, status=status, now_ns=ledger.now_ns())
            self._request = None
