"""The schedule policy extension: priority, timeout, a queue that is full."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, infer_http
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message

_EXTENSION = "schedule_policy"
_ROW = np.array([[1.5, -2.0]], dtype=np.float32)
_LONG = np.full((1, 2), 100_000, dtype=np.float32)  # products: some tenths of a second
_MOST_PATIENCE_S = 30.0
_PAUSE_S = 0.01  # of a client that was refused
_LATE_HTTP = Expected(("503", "504", "429"), {"error": ANY})
_LATE_GRPC = Expected(("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"), {"error": ANY})


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _parameters(protocol)
        yield from _queues(protocol)


def _infer(protocol: str, model: str, array: np.ndarray, **parameters: Any) -> Ask:
    if protocol == "grpc":
        return infer_grpc(add_raw(message(model, **parameters), array, datatype="FP32"))
    body = {"inputs": [json_input(array, datatype="FP32")], "parameters": parameters}
    return infer_http(model, body)


def _parameters(protocol: str) -> Iterator[Case]:
    good = Expected(("200",) if protocol == "http" else ("OK",))
    bad = Expected(("400",) if protocol == "http" else ("INVALID_ARGUMENT",), {"error": ANY})
    for name, parameters, expected in (
        ("priority", {"priority": 1}, good),
        ("priority-zero", {"priority": 0}, good),
        ("priority-beyond-the-levels", {"priority": 1000}, good),
        ("priority-negative", {"priority": -1}, bad),
        ("priority-a-text", {"priority": "high"}, bad),
        ("priority-a-fraction", {"priority": 1.5}, bad),
        ("timeout", {"timeout": 10_000_000}, good),
        ("timeout-zero", {"timeout": 0}, good),
        ("timeout-negative", {"timeout": -1}, Expected((*good.statuses, *bad.statuses))),
        ("timeout-a-text", {"timeout": "soon"}, bad),
        ("timeout-a-boolean", {"timeout": True}, bad),
    ):
        yield Case(
            f"{protocol}/schedule/{name}",
            _infer(protocol, "identity_fp32", _ROW, **parameters),
            expected,
            extension=_EXTENSION,
            models=("identity_fp32",),
        )


def _queues(protocol: str) -> Iterator[Case]:
    late = _LATE_HTTP if protocol == "http" else _LATE_GRPC
    waits = _infer(protocol, "patient", _ROW, timeout=1000)
    yield Case(
        f"{protocol}/schedule/timeout-while-another-runs",
        _behind("patient", 3, waits),
        late,
        extension=_EXTENSION,
        models=("patient",),
    )
    refused = _infer(protocol, "crowded", _ROW)
    yield Case(
        f"{protocol}/schedule/queue-that-is-full",
        _behind("crowded", 3, refused),
        late,
        extension=_EXTENSION,
        models=("crowded",),
    )


def _behind(model: str, others: int, ask: Ask) -> Ask:
    """Ask while so many clients keep the model busy with long requests.

    Nobody can ask a server whether its queue is full: ask until the answer is another one than
    that of an idle model, for as long as it may take, and give the last answer.
    """

    def asked(server: Server) -> Answer:
        request = add_raw(message(model), _LONG, datatype="FP32")
        enough = threading.Event()

        def keep_busy() -> None:
            while not enough.is_set():
                if server.grpc.call("ModelInfer", request).failed:
                    enough.wait(_PAUSE_S)

        threads = [threading.Thread(target=keep_busy) for _ in range(others)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + _MOST_PATIENCE_S
        try:
            answer = ask(server)
            while not answer.failed and time.monotonic() < until:
                answer = ask(server)
            return answer
        finally:
            enough.set()
            for thread in threads:
                thread.join()

    return asked
