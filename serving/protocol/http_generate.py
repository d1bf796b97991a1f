"""POST .../generate and .../generate_stream: flat JSON in, flat JSON or server-sent events out.

As in Triton: a field named as an input is that input, any other one a parameter of the request.
"""

import asyncio
import contextlib
import math
import reprlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ridgeline.errors import InvalidInput, Malformed
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.dataplane import DataPlane
from serving.protocol.http_inference import cancelled_on_disconnect, timeout_ns_of
from serving.protocol.http_routes import MODEL_PATHS, body_of, model_of, route
from serving.protocol.json_body import any_numbers, json_object
from serving.protocol.parameters import checked_parameters, schedule_parameters
from serving.protocol.statuses import status_of
from serving.protocol.tensors import flattened, from_numbers, naming_model, to_numbers
from serving.request import InferRequest, InferResponse, Parameter

_MOST_INT = 2**63


def generate_routes(dataplane: DataPlane, *, max_request_bytes: int) -> list[Route]:
    """POST .../generate and .../generate_stream."""
    generation = _Generation(dataplane, max_request_bytes=max_request_bytes)
    return [
        route(f"{path}/{name}", handler, methods=("POST",))
        for path in MODEL_PATHS
        for name, handler in (
            ("generate", generation.generate),
            ("generate_stream", generation.generate_stream),
        )
    ]


class _Generation:
    def __init__(self, dataplane: DataPlane, *, max_request_bytes: int) -> None:
        self._dataplane = dataplane
        self._max_request_bytes = max_request_bytes
        self._any_number = dataplane.like_triton

    async def generate(self, request: Request) -> Response:
        """The one answer of a model."""
        asked = await self._asked(request)
        with cancelled_on_disconnect(request):
            async with contextlib.aclosing(self._dataplane.stream(asked)) as stream:
                answers = _with_outputs(stream)
                first = await anext(answers, None)
                if first is None or await anext(answers, None) is not None:
                    raise InvalidInput(
                        "generate expects model to produce exactly 1 response, use generate "
                        "stream for model that generates various number of responses"
                    )
        encoded = _encoded(first, any_number=self._any_number)
        return Response(encoded, media_type="application/json")

    async def generate_stream(self, request: Request) -> Response:
        """Every answer of a model as an event; an error before the first one is a status."""
        asked = await self._asked(request)
        stream = self._dataplane.stream(asked)
        answers = _with_outputs(stream)
        try:
            with cancelled_on_disconnect(request):
                first = await anext(answers, None)
                event = None if first is None else _encoded(first, any_number=self._any_number)
        except BaseException:
            await stream.aclose()
            raise
        return _Events(event, answers=answers, stream=stream, any_number=self._any_number)

    async def _asked(self, request: Request) -> InferRequest:
        name, version = model_of(request)
        timeout_ns = timeout_ns_of(request)
        deadline_ns = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
        body = await body_of(request, most_bytes=self._max_request_bytes)
        spec = self._dataplane.find(name, version=version).loaded.spec
        with naming_model(name):
            table = json_object(body, any_number=self._any_number)
            return _decoded(table, spec=spec, version=version, deadline_ns=deadline_ns)


class _Events(Response):
    """Server-sent events; a client that goes away ends what makes them."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: bytes | None,
        *,
        answers: AsyncGenerator[InferResponse, None],
        stream: AsyncGenerator[InferResponse, None],
        any_number: bool,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._first, self._answers, self._stream = first, answers, stream
        self._any_number = any_number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        sending = asyncio.create_task(self._send(send))
        watching = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            watching.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            await self._answers.aclose()
            await self._stream.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        event = self._first
        while event is not None:
            body = b"data: " + event + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
            event = await self._next()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes | None:
        """The next event; an error is the last one."""
        try:
            answer = await anext(self._answers, None)
            return None if answer is None else _encoded(answer, any_number=self._any_number)
        except Exception as error:  # noqa: BLE001 - the table logs what it does not know
            await self._answers.aclose()
            return orjson.dumps({"error": status_of(error)[2]})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _with_outputs(
    stream: AsyncGenerator[InferResponse, None],
) -> AsyncGenerator[InferResponse, None]:
    """Without the empty one that only ends the answers."""
    async for response in stream:
        if response.outputs:
            yield response


def _decoded(
    table: dict[str, Any], *, spec: ModelSpec, version: str, deadline_ns: int | None
) -> InferRequest:
    by_name = {tensor.name: tensor for tensor in spec.inputs}
    parameters: dict[str, Parameter] = {}
    inputs = {}
    for name, value in table.items():
        if name in by_name:
            inputs[name] = _tensor(value, tensor=by_name[name], batches=spec.batches)
        elif name == "parameters":
            if not isinstance(value, dict):
                raise Malformed(f"'parameters' must be an object, got {reprlib.repr(value)}")
            parameters |= {key: _parameter(key, given) for key, given in value.items()}
        elif name != "id":
            parameters[name] = _parameter(name, value)
    request_id = table.get("id", "")
    if "id" not in by_name and not isinstance(request_id, str):
        raise InvalidInput(f"'id' must be a text, received {reprlib.repr(request_id)}")
    return InferRequest(
        model_name=spec.name,
        model_version=version,
        id="" if "id" in by_name else request_id,
        inputs=inputs,
        outputs=(),
        deadline_ns=deadline_ns,
        parameters=parameters,
        **schedule_parameters(checked_parameters(parameters)),
    )


def _parameter(name: str, value: Any) -> Parameter:
    if type(value) not in (bool, int, float, str) or (
        type(value) is int and not -_MOST_INT <= value < 2 * _MOST_INT
    ):
        raise InvalidInput(
            f"parameter {name[:100]!r} has invalid type. It should be either 'int', 'bool', or "
            f"'string', received {reprlib.repr(value)}"
        )
    parameter: Parameter = value
    return parameter


def _tensor(value: Any, *, tensor: TensorSpec, batches: bool) -> np.ndarray:
    """One row of an input, from a single value or a list of them, which may be nested."""
    values = flattened(value if isinstance(value, list) else [value], name=tensor.name)
    shape = _shape(len(values), tensor=tensor)
    if batches:
        shape = (1, *shape)
    return from_numbers(values, datatype_name=tensor.datatype, shape=shape, name=tensor.name)


def _shape(count: int, *, tensor: TensorSpec) -> tuple[int, ...]:
    """The shape of so many elements: as in Triton, the last free axis takes them all."""
    fixed = math.prod(size for size in tensor.shape if size != FREE)
    if FREE in tensor.shape and fixed and not count % fixed:
        last = len(tensor.shape) - 1 - tensor.shape[::-1].index(FREE)
        free = {axis: 1 for axis, size in enumerate(tensor.shape) if size == FREE}
        free[last] = count // fixed
        return tuple(free.get(axis, size) for axis, size in enumerate(tensor.shape))
    if FREE in tensor.shape or count != fixed:
        raise InvalidInput(
            f"The schema can not convert input {tensor.name!r} to tensor with proper shape: "
            f"expected {list(tensor.shape)}, received {count} values"
        )
    return tensor.shape


def _encoded(response: InferResponse, *, any_number: bool) -> bytes:
    """Outputs beside the model's name; a single value stands without a list."""
    table: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
    }
    if response.id:
        table["id"] = response.id
    for name, array in response.outputs.items():
        with naming_model(response.model_name):
            values = to_numbers(array, name=name, any_number=any_number)
        value = values[0] if len(values) == 1 else values
        table[name] = any_numbers(value) if any_number else value
    return orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY)
