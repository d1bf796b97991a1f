"""HTTP inference requests that look like one seen before, but for their tensors.

The same idea as in `grpc_known`, one layer further down: where tensors are binary data, everything
before them (request line, header fields, JSON) is equal from one request to the next. A request
that begins with bytes seen before, and has the size that belongs to them, is parsed neither as HTTP
nor as JSON.
"""

import functools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson

from ridgeline.datatypes import datatype
from ridgeline.model import FREE
from serving.dataplane import DataPlane
from serving.job import Payload
from serving.protocol.grpc_known import AnswerTemplate, KnownRequest, KnownRequests
from serving.protocol.http_codec import HEADER_LENGTH, DecodedRequest
from serving.request import InferRequest
from serving.version import ReadyVersion

_RECENT = 16


class KnownHttpRequests(KnownRequests):
    """The kinds of HTTP requests seen so far, by their whole size on the wire."""

    def __init__(self, dataplane: DataPlane) -> None:
        super().__init__(dataplane)
        self._recent: deque[tuple[bytes, int]] = deque(maxlen=_RECENT)  # heads, and whole sizes

    def size_of_beginning(self, data: bytes) -> int | None:
        """The size of the known requests that begin like this, if one does."""
        for head, size in self._recent:
            if len(data) < size and (data.startswith(head) or head.startswith(data)):
                return size
        return None

    def find_in_parts(
        self, parts: Sequence[bytes]
    ) -> tuple[KnownRequest, tuple[Payload, ...]] | None:
        """The kind of a request that came in parts, and its tensors."""
        size = sum(map(len, parts))
        most = max((len(known.head) for known in self._kinds.get(size, ())), default=0)
        first = parts[0]
        rest = [memoryview(part) for part in parts[1:]]
        while len(first) < most and rest:  # the tensors themselves are not joined, but for one
            need = most - len(first)
            first += bytes(rest[0][:need])
            rest[0] = rest[0][need:]
            if not rest[0]:
                del rest[0]
        return self.find((memoryview(first), *rest), size)

    def learn_http(
        self, parts: Sequence[bytes], decoded: DecodedRequest, *, timeout_ns: int | None
    ) -> None:
        """Remember the kind of a request that was answered the thorough way, where it has one.

        `parts` are its bytes from the first to the last; `timeout_ns` what its header fields say.
        """
        if self._dataplane.tracing.active:  # a known request is not traced
            return
        wire = b"".join(parts)
        request = decoded.request
        model = self._dataplane.find(request.model_name, version=request.model_version)
        spec = model.loaded.spec
        names = tuple(tensor.name for tensor in spec.outputs)
        as_binary = all(decoded.is_binary(name) for name in names)
        tensors = (*spec.inputs, *spec.outputs)
        if model.batcher is None:
            return
        if (
            request.id
            or not decoded.is_plain
            or request.outputs not in ((), names)
            or not as_binary
            or any(
                FREE in tensor.shape or tensor.datatype == "BYTES" or tensor.optional
                for tensor in tensors
            )
            or sum(array.nbytes for array in request.inputs.values()) != decoded.binary_bytes
            or not self._worth_learning(len(wire))
        ):
            return
        spans = _spans(request, begin=len(wire) - decoded.binary_bytes)
        rows = next(iter(request.inputs.values())).shape[0] if spec.batches else 1
        known = KnownRequest(
            batcher=model.batcher,
            head=wire[: len(wire) - decoded.binary_bytes],
            places=tuple(spans[tensor.name] for tensor in spec.inputs),
            gaps=(),
            rows=rows,
            size_bytes=decoded.binary_bytes,
            priority=request.priority,
            timeout_ns=request.timeout_ns,
            template=_template(model, rows=rows),
            wire_timeout_ns=timeout_ns,
            like_triton=self._dataplane.like_triton,
        )
        self._add(len(wire), known)
        self._recent.appendleft((known.head, len(wire)))


@functools.lru_cache(maxsize=256)
def error_response(status: HTTPStatus, text: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """A whole response that carries an error, as the application words it."""
    body = orjson.dumps({"error": text})
    fields = {"content-length": str(len(body)), "content-type": "application/json", **dict(headers)}
    return _head(status, fields) + body


def _head(status: HTTPStatus, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _spans(request: InferRequest, *, begin: int) -> dict[str, tuple[int, int]]:
    """Where the tensors stand, one behind the other in the order in which they were named."""
    spans = {}
    for name, array in request.inputs.items():
        spans[name] = (begin, begin + array.nbytes)
        begin += array.nbytes
    return spans


def _template(model: ReadyVersion, *, rows: int) -> AnswerTemplate:
    """The response of a model to so many rows, all outputs as binary data."""
    spec = model.loaded.spec
    outputs, sizes = [], []
    for tensor in spec.outputs:
        sizes.append(datatype(tensor.datatype).numpy.itemsize * math.prod(tensor.shape))
        outputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": [rows, *tensor.shape] if spec.batches else [*tensor.shape],
                "parameters": {"binary_data_size": sizes[-1] * rows},
            }
        )
    table = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    header = orjson.dumps(table)
    fields = {
        HEADER_LENGTH.lower(): str(len(header)),
        "content-length": str(len(header) + rows * sum(sizes)),
        "content-type": "application/octet-stream",
    }
    before = _head(HTTPStatus.OK, fields) + header
    return AnswerTemplate(
        before=(before, *[b""] * (len(sizes) - 1)),
        row_bytes=tuple(sizes),
        size=len(before) + rows * sum(sizes),
    )
