"""gRPC on our own HTTP/2, from the bytes of a connection to the batcher and back.

A usual inference request costs no task and no parsing: what `grpc_known` recognises goes straight
to the batcher, and its answer from the batch to the connection. Everything else is a task
over the methods that all front ends share; what streams is in `grpc_stream_call`.
"""

import asyncio
import functools
import time
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ridgeline.errors import Overloaded, RidgelineError, Unavailable
from serving.dataplane import DataPlane
from serving.job import BatchOutputs, Job, Payload
from serving.protocol import grpc_wire
from serving.protocol.grpc_codec import encode_response
from serving.protocol.grpc_inference import decoded
from serving.protocol.grpc_known import KnownRequest, KnownRequests
from serving.protocol.grpc_method import INFER, Method, StreamMethod, retry_metadata
from serving.protocol.grpc_methods import methods
from serving.protocol.grpc_stream_call import StreamCall
from serving.protocol.grpc_wire import CallHead, Refused
from serving.protocol.http2 import Connection
from serving.protocol.http2_sending import Limits, SendingSide, Stream
from serving.protocol.statuses import status_of
from serving.protocol.uploads import BODIES, Uploads


class GrpcService:
    """Everything that the calls of a server share; `uploads` also with other servers."""

    def __init__(
        self, dataplane: DataPlane, *, max_request_bytes: int, uploads: Uploads | None = None
    ) -> None:
        self.dataplane = dataplane
        self.uploads = uploads or Uploads(most_bytes=BODIES * max_request_bytes)
        self.max_request_bytes = max_request_bytes
        self.max_body_bytes = max_request_bytes + grpc_wire.PREFIX_BYTES
        self.methods: dict[str, Method] = {}
        self._streaming: dict[str, StreamMethod] = {}
        for path, method in methods(dataplane).items():
            if isinstance(method, StreamMethod):
                self._streaming[path] = method
            else:
                self.methods[path] = method
        self.known = KnownRequests(dataplane)
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._limits = Limits()
        self._read_head = functools.partial(grpc_wire.read_head, forwarding=dataplane.forwarding)

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(
            open_stream=self._open,
            read_head=self._read_head,
            limits=self._limits,
            uploads=self.uploads,
            connections=self.connections,
        )

    def _open(
        self, connection: SendingSide, number: int, head: CallHead, body: memoryview | None
    ) -> Stream | None:
        if body is not None and head.path == INFER and not head.forwards:
            return self._open_inference(connection, number, head, body)
        method = self._streaming.get(head.path)
        if method is not None:
            return StreamCall(
                connection,
                number,
                head=head,
                method=method,
                max_request_bytes=self.max_request_bytes,
                like_triton=self.dataplane.like_triton,
                tasks=self.tasks,
            )
        return Call(connection, number, head=head, service=self)

    def _open_inference(
        self, connection: SendingSide, number: int, head: CallHead, body: memoryview
    ) -> Stream | None:
        """A call of ModelInfer; none where it is answered already.

        That is one that comes alone, and one that is refused as the last one of its kind was.
        """
        found = self.known.find((body,), len(body))
        if found is not None:
            known, payloads = found
            size = known.template.size
            if size <= connection.peer_window and connection.admits(size):
                answer = known.answer_alone(payloads, timeout_ns=head.timeout_ns)
                if answer is not None:
                    connection.answer_at_once(number, envelope=grpc_wire.OK, body=answer, size=size)
                    return None
            block = known.batcher.refusal_of((known, head.timeout_ns))
            if block is not None:
                connection.refuse_at_once(number, block=block)
                return None
        return Call(connection, number, head=head, service=self, found=found)


class Call(Stream):
    """One unary call; `found` is its kind, where its request is here already and was recognised."""

    def __init__(
        self,
        connection: SendingSide,
        number: int,
        *,
        head: CallHead,
        service: GrpcService,
        found: tuple[KnownRequest, tuple[Payload, ...]] | None = None,
    ) -> None:
        super().__init__(connection, number)
        self._head = head
        self._service = service
        self._found = found
        self._chunks: list[memoryview] = []
        self._size = 0
        self.job: _CallJob | None = None  # while it is with the batcher
        self._task: asyncio.Task[None] | None = None
        timeout_ns = head.timeout_ns
        self.deadline_ns = None if timeout_ns is None else time.monotonic_ns() + timeout_ns

    def received(self, chunk: memoryview) -> None:
        """Keep a piece of the request, up to the limit."""
        self._size += len(chunk)
        self._chunks.append(chunk)
        if self._size > self._service.max_body_bytes:
            self._chunks.clear()
            error = grpc_wire.too_large(self._size, most=self._service.max_request_bytes)
            block = grpc_wire.status_block(error.code, str(error))
            self.connection.refuse(self, block=block, reset=True)

    def ended(self) -> None:
        """Answer, at once or later."""
        head, found = self._head, self._found
        if found is None and head.path == INFER and self._chunks and not head.forwards:
            found = self._service.known.find(self._chunks, self._size)
        if found is not None and self._chunks:  # else it was too large
            self._submit(found[0], found[1])
            return
        self._task = asyncio.get_running_loop().create_task(self._respond())
        self._service.tasks.add(self._task)
        self._task.add_done_callback(self._service.tasks.discard)

    def aborted(self) -> None:
        """The caller has gone: its work is dropped."""
        self._chunks.clear()
        job, self.job = self.job, None
        if job is not None:
            job.batcher.cancel(job)
        if self._task is not None:
            self._task.cancel()

    def give_up(self, error: Overloaded) -> None:
        """Refuse a request that goes on: there is no room for more of it."""
        self._chunks.clear()
        self.connection.refuse(self, block=_block_of(error), reset=True)

    def fail(self, error: Exception) -> None:
        """Send a status instead of an answer."""
        # A deadline of gRPC's own, which Triton leaves to gRPC, stays what it is.
        late = self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns
        like_triton = self._service.dataplane.like_triton and not late
        self.connection.refuse(self, block=_block_of(error, like_triton=like_triton))

    def _submit(self, known: KnownRequest, payloads: tuple[Payload, ...]) -> None:
        """Hand the job to its batcher, unless it comes alone, or is refused as its like was."""
        self._chunks = []
        batcher = known.batcher
        kind = (known, self._head.timeout_ns)
        if self._found is None:  # else `_open_inference` has looked
            left_ns = None
            if self.deadline_ns is not None:
                left_ns = max(0, self.deadline_ns - time.monotonic_ns())
            answer = known.answer_alone(payloads, timeout_ns=left_ns)
            if answer is not None:
                self.connection.answer(self, envelope=grpc_wire.OK, body=answer)
                return
            block = batcher.refusal_of(kind)
            if block is not None:
                self.connection.refuse(self, block=block)
                return
        job = _CallJob(self, known, payloads)
        try:
            batcher.submit(job)
        except Unavailable as refusal:
            block = _block_of(refusal)
            if refusal.retry_after_ns is not None:
                batcher.remember_refusal(kind, block, retry_after_ns=refusal.retry_after_ns)
            self.connection.refuse(self, block=block)
        except RidgelineError as error:
            self.fail(error)
        else:
            self.job = job

    async def _respond(self) -> None:
        """The thorough way."""
        head, service = self._head, self._service
        if not head.is_grpc:
            self.connection.refuse(self, block=grpc_wire.NOT_GRPC_BLOCK)
            return
        try:
            method = self._method()
            body, self._chunks = b"".join(self._chunks), []
            payload = grpc_wire.message(
                body, encoding=head.encoding, most=service.max_request_bytes
            )
            message = _parsed(method, payload)
            if head.path == INFER:
                response = await self._infer(message, payload)
            else:
                response = await method.answer(message, self.deadline_ns)
            framed = grpc_wire.framed(response.SerializeToString())
            self.connection.answer(self, envelope=grpc_wire.OK, body=[framed])
        except Refused as refused:
            self.connection.refuse(self, block=grpc_wire.status_block(refused.code, str(refused)))
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            self.fail(error)

    async def _infer(self, message: Any, payload: bytes) -> Any:
        service = self._service
        request, wishes = decoded(
            message,
            dataplane=service.dataplane,
            deadline_ns=self.deadline_ns,
            metadata=self._head.metadata,
        )
        response = await service.dataplane.infer(request)
        if not self._head.forwards:  # metadata are no part of a known kind
            service.known.learn(payload, message, request)
        return encode_response(response, wishes=wishes)

    def _method(self) -> Method:
        if self._head.fault is not None:
            raise Refused(grpc.StatusCode.INTERNAL, self._head.fault)
        method = self._service.methods.get(self._head.path)
        if method is None:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"no method {self._head.path!r}")
        return method


class _CallJob(Job):
    """The request of a call, where it is recognised, on its way through the batcher."""

    __slots__ = ("_call", "_known", "batcher")

    def __init__(self, call: Call, known: KnownRequest, payloads: tuple[Payload, ...]) -> None:
        super().__init__(
            payloads,
            rows=known.rows,
            size_bytes=known.size_bytes,
            deadline_ns=call.deadline_ns,
            timeout_ns=known.timeout_ns,
            priority=known.priority,
        )
        self.batcher = known.batcher
        self._call = call
        self._known = known

    def answer(self, outputs: BatchOutputs, first: int, last: int) -> None:
        """Put the answer together from its template, and send it."""
        call = self._call
        call.job = None  # else the two would keep each other, and what was read, from being freed
        body = self._known.template.body(outputs, first, last)
        call.connection.answer(call, envelope=grpc_wire.OK, body=body)

    def fail(self, error: Exception) -> None:
        """Send a status instead of an answer."""
        self._call.job = None
        self._call.fail(error)


def _block_of(error: Exception, *, like_triton: bool = False) -> bytes:
    code, _, text = status_of(error, like_triton=like_triton)
    return grpc_wire.status_block(code, text, retry_metadata(error))


def _parsed(method: Method, payload: bytes) -> Any:
    try:
        return method.request.FromString(payload)
    except DecodeError as error:
        raise Refused(grpc.StatusCode.INTERNAL, f"the request cannot be parsed: {error}") from None
