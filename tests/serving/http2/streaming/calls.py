"""Streaming calls on both front ends: ours with h2 as its client, in memory, and the handlers of
grpcio, whose server would leave events to the event loops of later tests.
"""

import asyncio
from types import SimpleNamespace

from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from serving.protocol.grpc_server import Handlers

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
STREAM_RESPONSE = service_pb2.ModelStreamInferResponse


class Failed(Exception):
    """The status that a client would receive: its number and its text."""


class HandlerChannel:
    """Calls of grpcio's handlers."""

    def __init__(self, dataplane):
        self._handlers = Handlers(dataplane)

    def open(self, path, *, metadata=()):
        handler = self._handlers.service(SimpleNamespace(method=path))
        assert (handler.request_streaming, handler.response_streaming) == (True, True)
        return HandlerCall(handler, metadata=metadata)


class HandlerCall:
    """A client's call of such a handler; its responses are not put into bytes."""

    def __init__(self, handler, *, metadata):
        self.requests = asyncio.Queue()
        self._context = HandlerContext(metadata)
        self._task = asyncio.create_task(handler.stream_stream(self._requests(), self._context))

    async def _requests(self):
        while (request := await self.requests.get()) is not None:
            yield request

    def write(self, request):
        self.requests.put_nowait(request)

    def done_writing(self):
        self.requests.put_nowait(None)

    async def read(self):
        reading = asyncio.create_task(self._context.responses.get())
        await asyncio.wait((reading, self._task), return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        reading.cancel()
        if self._context.error is not None:
            raise self._context.error
        return None

    def cancel(self):
        self._task.cancel()


class HandlerContext:
    """The part of a call's context that grpcio's handlers use."""

    def __init__(self, metadata):
        self._metadata = metadata
        self.responses = asyncio.Queue(1)
        self.error = None

    def time_remaining(self):
        return None

    def invocation_metadata(self):
        return self._metadata

    async def send_initial_metadata(self, metadata):
        assert metadata == ()

    async def write(self, response):
        await self.responses.put(response)

    async def abort(self, code, details, _metadata):
        self.error = Failed(code.value[0], details)


class WireChannel:
    """Calls over a connection of our own front end, each on a connection of its own."""

    def __init__(self, service, grpc_wire):
        self._service, self._grpc_wire = service, grpc_wire

    def open(self, path, *, metadata=(), timeout=None):
        headers = [(name.encode(), value.encode()) for name, value in metadata]
        if timeout:
            headers.append((b"grpc-timeout", timeout))
        client = self._grpc_wire(self._service)
        kind = health_pb2.HealthCheckResponse if path == WATCH else STREAM_RESPONSE
        return WireCall(client, client.send(path, headers=headers, ends=False), kind=kind)


class WireCall:
    """A client's call."""

    def __init__(self, client, number, *, kind):
        self._client, self._number, self._kind = client, number, kind
        self._read = 0  # messages

    def write(self, request):
        data = self._client.framed(request.SerializeToString())
        self._client.wire.client.send_data(self._number, data)
        self._client.wire.deliver()

    def done_writing(self):
        self._client.wire.client.end_stream(self._number)
        self._client.wire.deliver()

    async def read(self):
        wire = self._client.wire
        while True:
            body, has_ended = wire.answered(self._number)
            messages = list(_messages(body))
            if len(messages) > self._read:
                self._read += 1
                return self._kind.FromString(messages[self._read - 1])
            if has_ended:
                answer = await self._client.answer(self._number)
                if answer.code:
                    raise Failed(answer.code, answer.text)
                return None
            await wire.more()

    def cancel(self):
        self._client.wire.client.reset_stream(self._number)
        self._client.wire.deliver()


def _messages(body):
    while body:
        size = 5 + int.from_bytes(body[1:5], "big")
        yield body[5:size]
        body = body[size:]


async def rest(call):
    """What is left to read."""
    answers = []
    while (answer := await call.read()) is not None:
        answers.append(answer)
    return answers
