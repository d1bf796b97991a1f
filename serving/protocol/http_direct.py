"""HTTP/1.1 on uvicorn, but for the usual inference request, which never becomes an ASGI call.

What `http_known` recognises in the bytes of a connection goes straight to the batcher, and its
answer from the batch to the connection. Everything else is uvicorn's and the application's.
"""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ridgeline.errors import Overloaded, RidgelineError
from serving.job import Payload
from serving.protocol.grpc_known import KnownRequest
from serving.protocol.http_inference import WIRE
from serving.protocol.http_job import HttpJob
from serving.protocol.http_known import KnownHttpRequests, error_response
from serving.protocol.statuses import status_of
from serving.protocol.uploads import PIECE_BYTES, Upload, Uploads

_MOST_WIRE_BYTES = 16 << 20  # of a request that is learned from: it is there twice while it comes


class DirectHttpProtocol(HttpToolsProtocol):
    """One connection. A request is recognised where one begins and while none is being answered."""

    def __init__(
        self, *args: Any, known: KnownHttpRequests, uploads: Uploads, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._known = known
        self._uploads = uploads
        self._upload = _Promising(self._give_up)
        self._job: HttpJob | None = None
        self._held = b""  # what a client sent before it was answered
        self._promising: list[bytes] = []  # the beginning of what may be a known request
        self._missing_bytes = 0  # of it
        self._given_up = False  # it was: its rest is not wanted
        self._wire: list[bytes] = []  # of the request that is being parsed
        self._wire_bytes = 0
        self._messages_begun = self._messages_ended = 0
        self._closes = False

    def data_received(self, data: bytes) -> None:
        """Recognise a request, or hand the bytes on to be parsed."""
        if self._job is not None:
            self._held += data
            self.flow.pause_reading()
        elif self._promising:
            self._go_on(data)
        elif not self._between_requests():
            self._parse(data)
        elif (found := self._known.find((memoryview(data),), len(data))) is not None:
            self._submit(*found)
        elif size := self._known.size_of_beginning(data):
            self._missing_bytes = size
            self._go_on(data)
        else:
            self._parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone: its work is dropped."""
        self._uploads.release(self._upload)
        if self._job is not None:
            self._job.batcher.cancel(self._job)
        super().connection_lost(exc)

    def _between_requests(self) -> bool:
        between = self._messages_begun == self._messages_ended
        return between and (self.cycle is None or self.cycle.response_complete)

    def _go_on(self, data: bytes) -> None:
        """More of a request that began like a known one."""
        self._promising.append(data[: self._missing_bytes])
        self._held = data[self._missing_bytes :]
        self._missing_bytes -= len(self._promising[-1])
        if self._missing_bytes:
            self._keep(len(data))
            return
        self._uploads.release(self._upload)
        parts, self._promising = self._promising, []
        if self._given_up:
            self._given_up, held, self._held = False, self._held, b""
            if held:
                self.data_received(held)
            return
        found = self._known.find_in_parts(parts)
        if found is not None:
            self._submit(*found)
            return
        held, self._held = self._held, b""
        self._parse(b"".join(parts) + held)

    def _keep(self, size: int) -> None:
        """A piece has come, and is not the last one."""
        if self._given_up:
            self._promising = [b""]
            return
        try:
            held_bytes = self._upload.held_bytes + size + PIECE_BYTES
            self._uploads.hold(self._upload, held_bytes=held_bytes)
        except Overloaded as error:
            self._give_up(error)

    def _give_up(self, error: Overloaded) -> None:
        """There is no room for a request that has begun: it is refused, and its rest dropped."""
        self._promising, self._given_up = [b""], True
        _, status, text = status_of(error)
        if not self.transport.is_closing():
            self.transport.write(error_response(status, text, ()))
            self.on_response_complete()

    def _parse(self, data: bytes) -> None:
        """uvicorn's way; the application learns from the bytes of a request that came alone."""
        begun, between = self._messages_begun, self._between_requests()
        if between:
            self._wire, self._wire_bytes = [], 0
        self._wire_bytes += len(data)
        if self._wire_bytes <= _MOST_WIRE_BYTES:
            self._wire.append(data)
        else:
            self._wire.clear()
        super().data_received(data)
        if self._messages_begun != self._messages_ended:
            return
        wire, self._wire = self._wire, []
        if wire and self._messages_begun <= begun + 1 and self.cycle is not None:
            self.cycle.scope[WIRE] = wire  # type: ignore[literal-required]

    def on_message_begin(self) -> None:
        """Count, to know where requests begin."""
        self._messages_begun += 1
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Count, to know where requests begin."""
        self._messages_ended += 1
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that nobody has used for long, unless a request is under way."""
        if self._job is None and (self._given_up or not self._promising):
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Close, after the answer that is under way."""
        if self._job is None:
            super().shutdown()
        else:
            self._closes = True

    def respond(self, response: bytes) -> None:
        """Send the answer to the request that was recognised."""
        self._job = None
        if self.transport.is_closing():
            return
        self.transport.write(response)
        if self._closes:
            self.transport.close()
            return
        self.on_response_complete()
        if self._held:
            held, self._held = self._held, b""
            self.data_received(held)

    def _submit(self, known: KnownRequest, payloads: tuple[Payload, ...]) -> None:
        answer = known.answer_alone(payloads, timeout_ns=known.wire_timeout_ns)
        if answer is not None:
            self.respond(b"".join(answer))
            return
        job = self._job = HttpJob(self.respond, known, payloads)
        try:
            job.batcher.submit(job)
        except RidgelineError as error:
            job.fail(error)


class _Promising(Upload):
    """The request of a connection that began like a known one."""

    def __init__(self, give_up: Callable[[Overloaded], None]) -> None:
        self._give_up = give_up

    def give_up(self, error: Overloaded) -> None:
        self._give_up(error)
