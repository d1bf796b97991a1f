"""An HTTP request that was recognised, on its way through a batcher."""

import time
from collections.abc import Callable

from serving.batcher import Batcher
from serving.job import BatchOutputs, Job, Payload
from serving.protocol.grpc_known import KnownRequest
from serving.protocol.http_known import error_response
from serving.protocol.http_routes import retry_headers
from serving.protocol.statuses import status_of


class HttpJob(Job):
    """A recognised request; `respond` takes the bytes of a whole response."""

    __slots__ = ("_known", "_respond", "batcher")

    def __init__(
        self,
        respond: Callable[[bytes], None],
        known: KnownRequest,
        payloads: tuple[Payload, ...],
    ) -> None:
        timeout_ns = known.wire_timeout_ns
        super().__init__(
            payloads,
            rows=known.rows,
            size_bytes=known.size_bytes,
            deadline_ns=None if timeout_ns is None else time.monotonic_ns() + timeout_ns,
            timeout_ns=known.timeout_ns,
            priority=known.priority,
        )
        self.batcher: Batcher = known.batcher
        self._respond = respond
        self._known = known

    def answer(self, outputs: BatchOutputs, first: int, last: int) -> None:
        """Put the response together from its template, and send it."""
        self._respond(b"".join(self._known.template.body(outputs, first, last)))

    def fail(self, error: Exception) -> None:
        """Send the error."""
        _, status, text = status_of(error, like_triton=self._known.like_triton)
        self._respond(error_response(status, text, retry_headers(error)))
