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
_LONG = np.full((1, 2), 30_000, dtype=np.float32)  # products: about a tenth of a second
_FEWEST_OTHERS, _MOST_OTHERS = 3, 80
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
        _behind("patient", waits),
        late,
        extension=_EXTENSION,
        models=("patient",),
    )
    refused = _infer(protocol, "crowded", _ROW)
    yield Case(
        f"{protocol}/schedule/queue-that-is-full",
        _behind("crowded", refused),
        late,
        extension=_EXTENSION,
        models=("crowded",),
    )


def _behind(model: str, ask: Ask) -> Ask:
    """Ask while other clients keep the model busy with long requests, and give the last answer.

    Nobody can ask a server whether its queue is full, nor how many requests it runs at once, which
    may be one for each core: one more client comes with every answer that is that of a model with
    time to spare, until there are enough for whatever the server is and whatever else runs there.
    """

    def asked(server: Server) -> Answer:
        request = add_raw(message(model), _LONG, datatype="FP32")
        enough = threading.Event()

        def keep_busy() -> None:
            while not enough.is_set():
                if server.grpc.call("ModelInfer", request).failed:
                    enough.wait(_PAUSE_S)

        threads: list[threading.Thread] = []

        def add_client() -> None:
            threads.append(threading.Thread(target=keep_busy))
            threads[-1].start()

        until = time.monotonic() + _MOST_PATIENCE_S
        try:
            for _ in range(_FEWEST_OTHERS):
                add_client()
            answer = ask(server)
            while not answer.failed and time.monotonic() < until:
                if len(threads) < _MOST_OTHERS:
                    add_client()
                answer = ask(server)
            return answer
        finally:
            enough.set()
            for thread in threads:
                thread.join()

    return asked
