"""The schedule policy extension: priority, timeout, a queue that is full."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, infer_http
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message

_EXTENSION = "schedule_policy"
_ROW = np.array([[1.5, -2.0]], dtype=np.float32)
_LONG = np.full((1, 2), 400_000, dtype=np.float32)  # products: some tenths of a second
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
    """Ask while so many long requests run or wait."""

    def asked(server: Server) -> Answer:
        request = add_raw(message(model), _LONG, datatype="FP32")
        threads = [
            threading.Thread(target=server.grpc.call, args=("ModelInfer", request))
            for _ in range(others)
        ]
        for thread in threads:
            thread.start()
            # What is sent first shall be there first; there is no way to ask for the queue.
            thread.join(0.05)
        try:
            return ask(server)
        finally:
            for thread in threads:
                thread.join()

    return asked
