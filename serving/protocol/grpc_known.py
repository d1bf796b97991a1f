"""Inference requests that look like one seen before, but for their tensors: recognised, not parsed.

The first request of a kind goes the thorough way (`grpc_codec`). Where its tensors stand is then
proved once, by parsing it again with other tensors there; from then on, a request of the same size
with the same bytes around the tensors needs no parsing. Answers are likewise put together from a
template and the bytes of the outputs: concatenated fields are a message (protobuf encoding guide).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from ridgeline.datatypes import datatype
from ridgeline.errors import RidgelineError
from ridgeline.model import FREE, ModelSpec
from serving.batcher import Batcher
from serving.contract import check
from serving.dataplane import DataPlane
from serving.job import BatchOutputs, Buffer, Payload
from serving.protocol.grpc_wire import PREFIX_BYTES, framed
from serving.protocol.parameters import SCHEDULE_PARAMETERS
from serving.request import InferRequest
from serving.version import ReadyVersion

_MAX_SIZES: Final = 1024
_KINDS_OF_A_SIZE: Final = 4
_LEARN_EVERY: Final = 64  # misses, once there are as many kinds of a size as are kept
_MAX_HEAD_BYTES: Final = 8192  # of a kind that is kept


@dataclass(frozen=True, slots=True)
class AnswerTemplate:
    """The bytes of an answer around its outputs, each of which has so many bytes a row."""

    before: tuple[bytes, ...]  # each output's raw bytes; the first holds all that comes first
    row_bytes: tuple[int, ...]
    size: int  # of it all

    def body(self, outputs: BatchOutputs, first: int, last: int) -> list[Buffer]:
        """The framed message that carries those rows."""
        if len(self.before) == 1:
            size = self.row_bytes[0]
            return [self.before[0], outputs.raw[0][first * size : last * size]]
        parts: list[Buffer] = []
        for before, size, raw in zip(self.before, self.row_bytes, outputs.raw, strict=True):
            parts.append(before)
            parts.append(raw[first * size : last * size])
        return parts


@dataclass(frozen=True, slots=True, eq=False)
class KnownRequest:
    """One kind of request: what is equal in all of them, and where their tensors stand."""

    batcher: Batcher
    head: bytes  # from the first byte of the body to the first tensor
    places: tuple[tuple[int, int], ...]  # of the tensors, in the order of the model's inputs
    gaps: tuple[tuple[int, bytes], ...]  # what stands between them, where there are several
    rows: int
    size_bytes: int
    priority: int
    timeout_ns: int | None
    template: AnswerTemplate
    wire_timeout_ns: int | None = None  # of header fields that are part of `head`
    like_triton: bool = False  # how errors are told

    def answer_alone(
        self, payloads: tuple[Payload, ...], *, timeout_ns: int | None
    ) -> list[Buffer] | None:
        """The answer to a request that comes alone; None for one that has to be submitted.

        `timeout_ns` is what its caller gives it, beside what the request says itself.
        """
        own_ns = self.timeout_ns
        if own_ns:
            timeout_ns = own_ns if timeout_ns is None else min(own_ns, timeout_ns)
        outputs = self.batcher.run_alone(payloads, rows=self.rows, timeout_ns=timeout_ns)
        return None if outputs is None else self.template.body(outputs, 0, self.rows)

    def payloads(self, chunks: Sequence[memoryview]) -> tuple[Payload, ...] | None:
        """The tensors of a body of this size; None where it is of another kind."""
        first, start = chunks[0], len(self.head)
        if first[:start].tobytes() != self.head:  # a view would compare item by item
            return None
        if len(chunks) == 1:
            if len(self.places) == 1:
                return (first[start:],)
            if any(first[at : at + len(gap)] != gap for at, gap in self.gaps):
                return None
            return tuple(first[begin:end] for begin, end in self.places)
        if len(self.places) == 1 and len(first) >= start:
            return ([first[start:], *chunks[1:]],)
        return None


class KnownRequests:
    """The kinds of requests seen so far, by the size of their bodies."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._generation = dataplane.generation
        self._kinds: dict[int, list[KnownRequest]] = {}
        self._misses = 0

    def find(
        self, chunks: Sequence[memoryview], size: int
    ) -> tuple[KnownRequest, tuple[Payload, ...]] | None:
        """The kind of a body, and its tensors."""
        if self._generation != self._dataplane.generation:  # a model has come or gone
            self._generation = self._dataplane.generation
            self._kinds.clear()
        for known in self._kinds.get(size, ()):
            payloads = known.payloads(chunks)
            if payloads is not None:
                return known, payloads
        return None

    def learn(
        self, payload: bytes, message: service_pb2.ModelInferRequest, request: InferRequest
    ) -> None:
        """Remember the kind of a request that was answered the thorough way, where it has one."""
        if self._dataplane.tracing.active:  # a known request is not traced
            return
        if not self._worth_learning(len(payload) + PREFIX_BYTES):
            return
        try:  # it may have gone, or another version have come, since it answered
            model = self._dataplane.find(request.model_name, version=request.model_version)
            spec = model.loaded.spec
            check(request, spec=spec)
        except RidgelineError:
            return
        if model.batcher is None or request.id or not _is_plain(message, spec):
            return
        spans = _tensor_spans(payload, message)
        if spans is None:
            return
        body = framed(payload)
        if self.find([memoryview(body)], len(body)):  # its like was learned meanwhile
            return
        spans = [(begin + PREFIX_BYTES, end + PREFIX_BYTES) for begin, end in spans]
        if len(body) - sum(end - begin for begin, end in spans) > _MAX_HEAD_BYTES:
            return
        by_name = {tensor.name: span for tensor, span in zip(message.inputs, spans, strict=True)}
        rows = message.inputs[0].shape[0] if spec.batches else 1
        self._add(
            len(body),
            KnownRequest(
                batcher=model.batcher,
                head=body[: spans[0][0]],
                places=tuple(by_name[tensor.name] for tensor in spec.inputs),
                gaps=tuple(
                    (end, body[end:begin]) for (_, end), (begin, _) in itertools.pairwise(spans)
                ),
                rows=rows,
                size_bytes=sum(end - begin for begin, end in spans),
                priority=request.priority,
                timeout_ns=request.timeout_ns,
                template=_template(model, rows=rows),
            ),
        )

    def _worth_learning(self, size: int) -> bool:
        """Whether there is room for a kind of that size; now and then one is replaced."""
        self._misses += 1
        kinds = self._kinds.get(size, ())
        return len(kinds) < _KINDS_OF_A_SIZE or not self._misses % _LEARN_EVERY

    def _add(self, size: int, known: KnownRequest) -> None:
        if len(self._kinds) >= _MAX_SIZES:
            self._kinds.clear()
        kinds = self._kinds.setdefault(size, [])
        del kinds[: max(0, len(kinds) + 1 - _KINDS_OF_A_SIZE)]
        kinds.append(known)


def _is_plain(message: service_pb2.ModelInferRequest, spec: ModelSpec) -> bool:
    """Whether tensors are raw, of sizes that the model fixes, and all outputs are asked for.

    A template ignores all parameters but those of the schedule policy: others are the model's.
    """
    tensors = (*spec.inputs, *spec.outputs)
    names = [tensor.name for tensor in spec.outputs]
    return (
        len(message.raw_input_contents) == len(message.inputs)
        and all(message.raw_input_contents)
        and [output.name for output in message.outputs] in ([], names)
        and SCHEDULE_PARAMETERS.issuperset(message.parameters)
        and not any(tensor.parameters for tensor in (*message.inputs, *message.outputs))
        and not any(
            FREE in tensor.shape or tensor.datatype == "BYTES" or tensor.optional
            for tensor in tensors
        )
    )


def _tensor_spans(
    payload: bytes, message: service_pb2.ModelInferRequest
) -> list[tuple[int, int]] | None:
    """Where the raw tensors stand, if at the end and in order, as every client writes them."""
    spans: list[tuple[int, int]] = []
    end = len(payload)
    for raw in reversed(message.raw_input_contents):
        spans.append((end - len(raw), end))
        alone = service_pb2.ModelInferRequest(raw_input_contents=[raw])
        end -= alone.ByteSize()
    spans.reverse()
    if end < 0:
        return None
    changed, expected = bytearray(payload), service_pb2.ModelInferRequest()
    expected.CopyFrom(message)
    for index, (begin, stop) in enumerate(spans):
        other = bytes(255 - value for value in payload[begin : min(stop, begin + 8)])
        changed[begin : begin + len(other)] = other
        expected.raw_input_contents[index] = other + payload[begin + len(other) : stop]
    try:
        proved = service_pb2.ModelInferRequest.FromString(bytes(changed)) == expected
    except DecodeError:  # they stand elsewhere
        return None
    return spans if proved else None


def _template(model: ReadyVersion, *, rows: int) -> AnswerTemplate:
    """The answer of a model to so many rows."""
    spec = model.loaded.spec
    response = service_pb2.ModelInferResponse(model_name=model.name, model_version=model.version)
    sizes, headers = [], []
    for tensor in spec.outputs:
        shape = (rows, *tensor.shape) if spec.batches else tensor.shape
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        size = datatype(tensor.datatype).numpy.itemsize
        for axis in tensor.shape:
            size *= axis
        raw = service_pb2.ModelInferResponse(raw_output_contents=[bytes(size * rows)])
        headers.append(raw.SerializeToString()[: raw.ByteSize() - size * rows])
        sizes.append(size)
    head = response.SerializeToString()
    length = len(head) + sum(map(len, headers)) + rows * sum(sizes)
    headers[0] = b"\0" + length.to_bytes(4, "big") + head + headers[0]
    return AnswerTemplate(before=tuple(headers), row_bytes=tuple(sizes), size=PREFIX_BYTES + length)
