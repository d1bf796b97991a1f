"""ModelStreamInfer: requests in, responses out, on one call.

As in Triton, the requests of a stream run at the same time; models that answer once are answered in
the order of the requests, decoupled ones as their answers come; a request that fails tells so in
its own response, and the stream goes on.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from tritonclient.grpc import service_pb2

from ridgeline.errors import InvalidInput, RidgelineError, Unavailable
from serving.dataplane import DataPlane
from serving.protocol.grpc_codec import encode_response
from serving.protocol.grpc_inference import decoded
from serving.protocol.grpc_method import CallContext
from serving.protocol.outputs import Wishes
from serving.protocol.statuses import status_of
from serving.request import InferRequest, InferResponse

# What one stream may have under way; more of its requests are read when these are answered.
_MAX_REQUESTS = 256
_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_MAX_UNSENT = 16  # responses that wait for the client to read

_EMPTY_FINAL = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"
_RESERVED = "triton_"
_FAIL_CALL = "triton_grpc_error"  # metadata: the first error ends the call, as its status


class StreamInference:
    """The method, over a data plane."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    async def answer(
        self, requests: AsyncIterator[Any], context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The responses of one call; when the server stops, those to what was read before."""
        stream = _Stream(self._dataplane, context=context)
        async with contextlib.aclosing(stream.answers(requests)) as answers:
            async for answer in answers:
                yield answer


class _Room:
    """What a stream may have under way, in requests and bytes."""

    def __init__(self) -> None:
        self._count = self._size_bytes = 0
        self._left = asyncio.Event()

    async def enter(self, size_bytes: int) -> None:
        """Wait until there is room for one more request; there always is for a single one."""
        while self._count and (
            self._count >= _MAX_REQUESTS or self._size_bytes + size_bytes > _MAX_REQUEST_BYTES
        ):
            self._left.clear()
            await self._left.wait()
        self._count += 1
        self._size_bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """Give the room of a request back."""
        self._count -= 1
        self._size_bytes -= size_bytes
        self._left.set()


class _Stream:
    """One call."""

    def __init__(self, dataplane: DataPlane, *, context: CallContext) -> None:
        self._dataplane = dataplane
        self._deadline_ns = context.deadline_ns
        self._metadata = context.metadata
        self._fails_call = context.metadata.get(_FAIL_CALL, "").lower() in ("true", "1")
        self._room = _Room()
        # Responses; at the end what the call ends with: nothing (None), or an error.
        self._out: asyncio.Queue[Any] = asyncio.Queue(_MAX_UNSENT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: asyncio.Event | None = None  # set when what was asked before is answered

    async def answers(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """All responses; then the error that ends the call, where there is one."""
        reading = asyncio.create_task(self._read(requests))
        stopping = asyncio.create_task(self._dataplane.until_stopping())
        finishing = asyncio.create_task(self._finish(reading, stopping))
        try:
            while (item := await self._out.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            tasks = [reading, stopping, finishing, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, reading: asyncio.Task[None], stopping: asyncio.Task[None]) -> None:
        """When no more is read, wait for what is under way, and tell how the call ends."""
        await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        error: BaseException | None = Unavailable("the server is stopping")
        if reading.done():
            error = reading.exception()
        else:
            reading.cancel()
            await asyncio.wait((reading,))
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._out.put(error)

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        async for message in requests:
            size_bytes = message.ByteSize()
            await self._room.enter(size_bytes)
            if self._is_decoupled(message):
                serving = self._serve(message, decoupled=True)
            else:
                before, self._last = self._last, asyncio.Event()
                serving = self._serve(message, before=before, done=self._last)
            task = asyncio.create_task(serving)
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._served, size_bytes))

    def _served(self, size_bytes: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.leave(size_bytes)

    def _is_decoupled(self, message: Any) -> bool:
        try:
            model = self._dataplane.find(message.model_name, version=message.model_version)
        except RidgelineError:  # who serves the request meets it again
            return False
        return bool(model.loaded.config.model_transaction_policy.decoupled)

    async def _serve(
        self,
        message: Any,
        *,
        decoupled: bool = False,
        before: asyncio.Event | None = None,
        done: asyncio.Event | None = None,
    ) -> None:
        """Answer one request, behind those `before` it; then it is `done`."""
        answer: Any = None
        try:
            wants_empty_final = _wants_empty_final(message)
            request, wishes = decoded(
                message,
                dataplane=self._dataplane,
                deadline_ns=self._deadline_ns,
                metadata=self._metadata,
            )
            if decoupled:
                await self._serve_decoupled(
                    request, wishes=wishes, wants_empty_final=wants_empty_final
                )
            else:
                response = await self._dataplane.infer(request)
                answer = _encoded(response, wishes=wishes, final=True)
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            answer = error if self._fails_call else _failed(error, request_id=message.id)
        if before is not None:
            await before.wait()
        if answer is not None:
            await self._out.put(answer)
        if done is not None:
            done.set()

    async def _serve_decoupled(
        self, request: InferRequest, *, wishes: Wishes, wants_empty_final: bool
    ) -> None:
        """Pass on every answer, as it comes; the empty one that ends them if it is wanted."""
        final = False
        version = request.model_version
        async with contextlib.aclosing(self._dataplane.stream(request)) as responses:
            async for response in responses:
                final, version = response.final, response.model_version
                if response.outputs or not final or wants_empty_final:
                    await self._out.put(_encoded(response, wishes=wishes, final=final))
        if wants_empty_final and not final:
            end = InferResponse(
                model_name=request.model_name, model_version=version, outputs={}, id=request.id
            )
            await self._out.put(_encoded(end, wishes=wishes, final=True))


def _wants_empty_final(message: Any) -> bool:
    """Whether a client wants to be told the end of its answers by a response without outputs.

    Raises InvalidInput for another parameter of the reserved names, or one that is no boolean.
    """
    for name, value in message.parameters.items():
        if not name.startswith(_RESERVED):
            continue
        if name != _EMPTY_FINAL:
            raise InvalidInput(
                f"parameter keys starting with {_RESERVED!r} are reserved; only {_EMPTY_FINAL!r} "
                f"is known, received {name[:100]!r}"
            )
        choice = value.WhichOneof("parameter_choice")
        if choice != "bool_param":
            raise InvalidInput(
                f"invalid value type for {_EMPTY_FINAL!r} parameter, expected bool_param, "
                f"received {choice}"
            )
        return bool(value.bool_param)
    return False


def _encoded(response: InferResponse, *, wishes: Wishes, final: bool) -> Any:
    message = encode_response(response, wishes=wishes)
    message.parameters[_FINAL].bool_param = final
    return service_pb2.ModelStreamInferResponse(infer_response=message)


def _failed(error: Exception, *, request_id: str) -> Any:
    _, _, text = status_of(error)
    answer = service_pb2.ModelStreamInferResponse(error_message=text)
    answer.infer_response.id = request_id
    return answer
