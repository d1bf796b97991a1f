"""gRPC as bytes: any method by name, any payload, messages of Triton's schema or garbage."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from conformance.answer import Answer

SERVICE = "inference.GRPCInferenceService"
_MOST_BYTES = 64 * 1024 * 1024
# The size of a number in `raw_output_contents` is not needed here: outputs stay bytes.
_OPTIONS = (
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", _MOST_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


class GrpcProbe:
    """Calls one server over one channel, each call within `timeout_s`."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def call(
        self,
        method: str,
        request: Message | bytes | None = None,
        *,
        service: str = SERVICE,
        response: type[Message] | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Answer:
        """A unary call; without a request an empty one, without a class the method's own."""
        payload = request.SerializeToString() if isinstance(request, Message) else request or b""
        kind = response or getattr(service_pb2, f"{method}Response", None)
        send = self._channel.unary_unary(f"/{service}/{method}")
        try:
            data = send(payload, timeout=timeout_s or self._timeout_s, **options)
        except grpc.RpcError as error:
            return _refusal(error)
        if kind is None:
            return Answer("OK", {"bytes": len(data)})
        return Answer("OK", as_table(kind.FromString(data)))

    def infer(self, request: Message | bytes, **options: Any) -> Answer:
        """ModelInfer."""
        return self.call("ModelInfer", request, **options)

    def stream(
        self,
        requests: Iterable[Message | bytes],
        *,
        method: str = "ModelStreamInfer",
        response: type[Message] = service_pb2.ModelStreamInferResponse,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """Send every request, then read to the end: the body is the list of what came."""
        call = self._channel.stream_stream(f"/{SERVICE}/{method}")(
            iter([_bytes(request) for request in requests]),
            timeout=self._timeout_s,
            metadata=metadata,
        )
        return _collected(call, response)

    def raw_stream(self, path: str, requests: list[bytes]) -> Answer:
        """A stream of bytes both ways: the body tells how many messages came, and not which."""
        call = self._channel.stream_stream(path)(iter(requests), timeout=self._timeout_s)
        try:
            return Answer("OK", {"messages": len(list(call))})
        except grpc.RpcError as error:
            return _refusal(error)

    def server_stream(
        self,
        path: str,
        request: Message | bytes,
        *,
        response: type[Message],
        until: Callable[[list[Any]], bool],
    ) -> Answer:
        """One request to the method at `path`, and what comes until enough has come."""
        call = self._channel.unary_stream(path)(_bytes(request), timeout=self._timeout_s)
        return _collected(call, response, until=until)


def _bytes(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _collected(
    call: Any, response: type[Message], *, until: Callable[[list[Any]], bool] | None = None
) -> Answer:
    received: list[Any] = []
    try:
        for data in call:
            received.append(as_table(response.FromString(data)))
            if until and until(received):
                call.cancel()
                break
    except grpc.RpcError as error:
        refused = _refusal(error)
        return Answer(refused.status, {"received": received, **refused.body})
    return Answer("OK", received)


def as_table(message: Message, /) -> Any:
    """A message as JSON, with the names of its schema; outputs of inferences as hexadecimal."""
    if isinstance(message, service_pb2.ModelInferResponse):
        return _inference(message)
    if isinstance(message, service_pb2.ModelStreamInferResponse):
        if message.error_message:
            return {"error": message.error_message}
        return _inference(message.infer_response)
    return MessageToDict(message, preserving_proto_field_name=True)


def _inference(message: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "model_name": message.model_name,
        "model_version": message.model_version,
        "outputs": [
            {
                "name": output.name,
                "datatype": output.datatype,
                "shape": list(output.shape),
                **({"parameters": _parameters(output.parameters)} if output.parameters else {}),
            }
            for output in message.outputs
        ],
    }
    if message.id:
        table["id"] = message.id
    if message.parameters:
        table["parameters"] = _parameters(message.parameters)
    for output, data in zip(table["outputs"], message.raw_output_contents, strict=False):
        output["hex"] = data.hex()
    if len(message.raw_output_contents) > len(message.outputs):
        table["raw_contents_without_output"] = True
    return table


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in sorted(parameters.items())
    }


def _refusal(error: grpc.RpcError) -> Answer:
    return Answer(error.code().name, {"error": error.details() or ""})
