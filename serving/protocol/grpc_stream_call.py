"""gRPC on our own HTTP/2: calls of many messages, read and answered one by one as they come.

Nothing piles up: a client may send about a window's worth of what nobody has taken yet, and a
message is put together only once the one before it has left for the client.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from ridgeline.errors import Overloaded
from serving.protocol import grpc_wire
from serving.protocol.grpc_method import CallContext, StreamMethod, retry_metadata
from serving.protocol.grpc_wire import CallHead, MessageReader, Refused
from serving.protocol.http2_sending import SendingSide, Stream
from serving.protocol.statuses import status_of

_NS_PER_S = 1_000_000_000
_MESSAGE_BYTES = 128  # what a message takes beside its bytes, about


class StreamCall(Stream):
    """One call of a method that streams; a task of `tasks` answers it."""

    def __init__(
        self,
        connection: SendingSide,
        number: int,
        *,
        head: CallHead,
        method: StreamMethod,
        max_request_bytes: int,
        like_triton: bool,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        super().__init__(connection, number, paced=True)
        self._head, self._method, self._most_bytes = head, method, max_request_bytes
        self._like_triton = like_triton
        self._reader = MessageReader(most=max_request_bytes)
        self._messages: deque[tuple[bool, bytes]] = deque()
        self._message_bytes = 0  # held by those that nobody has taken yet
        self._most_waiting_bytes = connection.limits.stream_window_bytes >> 1
        self._has_ended = False
        self._fault: Refused | Overloaded | None = None
        self._news = asyncio.Event()  # something came, or ended
        self._sent = asyncio.Event()
        timeout_ns = head.timeout_ns
        self._deadline_ns = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
        self._task = asyncio.get_running_loop().create_task(self._run())
        tasks.add(self._task)
        self._task.add_done_callback(tasks.discard)

    # --- what the connection calls ----------------------------------------------------------------

    def received(self, chunk: memoryview) -> None:
        """Take the messages out of what came."""
        if self._fault is None:
            try:
                messages = self._reader.feed(chunk)
            except Refused as error:
                self._fault, messages = error, []
                self._news.set()
            if messages:
                self._messages += messages
                self._message_bytes += sum(map(_held_bytes, messages))
                self._news.set()
            try:
                self._count()
            except Overloaded as error:
                self.give_up(error)
            else:
                self._admit()

    def give_up(self, error: Overloaded) -> None:
        """Forget what has come: the call ends by this error."""
        self._fault = error
        self._forget()
        self._news.set()

    def ended(self) -> None:
        """The client sends no more."""
        self._has_ended = True
        if self._reader.unread_bytes and self._fault is None:
            text = f"the last message is cut off: {self._reader.unread_bytes} bytes of it came"
            self._fault = Refused(grpc.StatusCode.INTERNAL, text)
        self._news.set()

    def aborted(self) -> None:
        """The caller has gone: its work is dropped."""
        self.unsent = None
        self._forget()
        self._task.cancel()

    def drained(self) -> None:
        """There is room for the next message."""
        self._sent.set()

    # --- the answer -------------------------------------------------------------------------------

    async def _run(self) -> None:
        self.connection.begin(self, block=grpc_wire.HEAD_BLOCK)
        block = await self._outcome()
        self._forget()
        self.connection.end(self, block=block, reset=not self._has_ended)

    async def _outcome(self) -> bytes:
        """Answer; returns the trailers. A deadline that passes ends it in the middle."""
        seconds = None
        if self._deadline_ns is not None:
            seconds = max(0, self._deadline_ns - time.monotonic_ns()) / _NS_PER_S
        timer = asyncio.timeout(seconds)
        try:
            async with timer:
                await self._answer()
        except Refused as refused:
            return grpc_wire.trailers_block(refused.code, str(refused))
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            if timer.expired():
                text = "the deadline of the call has passed"
                return grpc_wire.trailers_block(grpc.StatusCode.DEADLINE_EXCEEDED, text)
            code, _, text = status_of(error, like_triton=self._like_triton)
            return grpc_wire.trailers_block(code, text, retry_metadata(error))
        return grpc_wire.trailers_block(grpc.StatusCode.OK, "")

    async def _answer(self) -> None:
        metadata = {
            name.decode("ascii", "replace"): value.decode("ascii", "replace")
            for name, value in self._head.metadata.items()
        }
        context = CallContext(deadline_ns=self._deadline_ns, metadata=metadata)
        async with contextlib.aclosing(self._method.answer(self._requests(), context)) as answers:
            async for answer in answers:
                await self._send(answer)

    async def _send(self, message: Message) -> None:
        payload = grpc_wire.framed(message.SerializeToString())
        await self.connection.flows.wait()
        self._sent.clear()
        self.connection.send(self, payload)
        await self._sent.wait()

    async def _requests(self) -> AsyncIterator[Any]:
        """The messages of the client. Raises Refused for one that cannot be read."""
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._message_bytes -= _held_bytes(message)
                self._count()
                self._admit()
                is_compressed, payload = message
                yield self._parsed(payload, is_compressed=is_compressed)
            if self._fault is not None:
                raise self._fault
            if self._has_ended:
                return
            self._news.clear()
            await self._news.wait()

    def _admit(self) -> None:
        """Let the client send more, unless enough of what it sent still waits."""
        if self._message_bytes <= self._most_waiting_bytes:
            self.connection.admit(self)

    def _count(self) -> None:
        """Tell what is held now: of messages that nobody has taken, and of one not yet whole."""
        held_bytes = self._message_bytes + self._reader.held_bytes
        self.connection.uploads.hold(self, held_bytes=held_bytes)

    def _forget(self) -> None:
        self._messages.clear()
        self._message_bytes = 0
        self._reader = MessageReader(most=self._most_bytes)
        self.connection.uploads.release(self)

    def _parsed(self, payload: bytes, *, is_compressed: bool) -> Any:
        if is_compressed:
            encoding = self._head.encoding
            payload = grpc_wire.decompressed(payload, encoding, most=self._most_bytes)
        try:
            return self._method.request.FromString(payload)
        except DecodeError as error:
            text = f"a request cannot be parsed: {error}"
            raise Refused(grpc.StatusCode.INTERNAL, text) from None


def _held_bytes(message: tuple[bool, bytes]) -> int:
    """What a message holds; also an empty one, of which any number may wait."""
    return len(message[1]) + _MESSAGE_BYTES
