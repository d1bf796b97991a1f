"""The model repository extension: index, load with and without overrides, unload.

Only the models `controlled`, `dependent` and `supporting` are touched, and left as they were.
"""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, infer_http, post, rpc, steps
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message

_EXTENSION = "model_repository"
_ROW = np.array([[1.5, -2.0]], dtype=np.float32)
_CONFIG = {
    "name": "controlled",
    "backend": "onnxruntime",
    "max_batch_size": 2,
    "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1]}],
}


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _index(protocol)
        yield from _life(protocol)
        yield from _overrides(protocol)
        yield from _dependents(protocol)
        yield from _faults(protocol)


def _good(protocol: str) -> tuple[str, ...]:
    return ("200",) if protocol == "http" else ("OK",)


def _bad(protocol: str) -> tuple[str, ...]:
    return (
        ("400", "404", "500")
        if protocol == "http"
        else ("INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL")
    )


def _case(protocol: str, name: str, ask: Ask, expected: Expected, *models: str) -> Case:
    return Case(f"{protocol}/repository/{name}", ask, expected, extension=_EXTENSION, models=models)


def _index(protocol: str) -> Iterator[Case]:
    good = _good(protocol)
    ready = [{"name": "simple", "version": "1", "state": "READY"}]
    chosen = [{"name": "versioned", "version": version, "state": "READY"} for version in ("1", "3")]
    yield _case(protocol, "index", _rows(protocol, "simple"), Expected(good, ready), "simple")
    yield _case(
        protocol,
        "index-of-versions",
        _rows(protocol, "versioned"),
        Expected(good, chosen),
        "versioned",
    )
    yield _case(
        protocol,
        "index-of-ready-models",
        _rows(protocol, "simple", ready=True),
        Expected(good, ready),
        "simple",
    )
    empty = post("/v2/repository/index") if protocol == "http" else rpc("RepositoryIndex", b"")
    yield _case(protocol, "index-without-a-body", _only_status(empty), Expected(good))
    yield _case(
        protocol,
        "index-of-an-unknown-repository",
        _index_of_repository(protocol),
        Expected(("200", "400", "404", "501") if protocol == "http" else ANY_STATUS),
    )
    if protocol == "http":
        broken = post("/v2/repository/index", b"{")
        yield _case(protocol, "index-with-a-broken-body", broken, Expected(("400",)))
        text = post("/v2/repository/index", {"ready": "yes"})
        yield _case(protocol, "index-with-ready-a-text", text, Expected(("400",)))


ANY_STATUS = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE")


def _index_of_repository(protocol: str) -> Ask:
    if protocol == "http":
        return _only_status(post("/v2/repository/repositories/nope/index"))
    request = service_pb2.RepositoryIndexRequest(repository_name="nope")
    return _only_status(rpc("RepositoryIndex", request))


def _only_status(ask: Ask) -> Ask:
    def asked(server: Server) -> Answer:
        answer = ask(server)
        return answer if answer.failed else Answer(answer.status)

    return asked


def _rows(protocol: str, model: str, *, ready: bool | None = None) -> Ask:
    """The rows of one model in the index."""
    if protocol == "http":
        ask = post("/v2/repository/index", {} if ready is None else {"ready": ready})
    else:
        ask = rpc("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=bool(ready)))

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        table = answer.body if protocol == "http" else answer.body.get("models", [])
        rows = [{**row, "reason": row.get("reason", "")} for row in table if row["name"] == model]
        return Answer(answer.status, sorted(rows, key=lambda row: row.get("version", "")))

    return asked


def _load(protocol: str, model: str, **parameters: Any) -> Ask:
    return _control(protocol, "load", model, parameters)


def _unload(protocol: str, model: str, **parameters: Any) -> Ask:
    return _control(protocol, "unload", model, parameters)


def _control(protocol: str, what: str, model: str, parameters: dict[str, Any]) -> Ask:
    if protocol == "http":
        path = f"/v2/repository/models/{model}/{what}"
        told = {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in parameters.items()
        }
        return post(path, {"parameters": told} if told else None)
    kind = getattr(service_pb2, f"RepositoryModel{what.capitalize()}Request")
    request = kind(model_name=model)
    for name, value in parameters.items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param", bytes: "bytes_param"}
        setattr(request.parameters[name], field[type(value)], value)
    return rpc(f"RepositoryModel{what.capitalize()}", request)


def _infer(protocol: str, model: str = "controlled") -> Ask:
    if protocol == "http":
        return infer_http(model, {"inputs": [json_input(_ROW, datatype="FP32")]})
    return infer_grpc(add_raw(message(model), _ROW, datatype="FP32"))


def _restored(protocol: str, ask: Ask, model: str = "controlled") -> Ask:
    """Whatever the case did, the model is loaded again as it was."""

    def asked(server: Server) -> Answer:
        try:
            return ask(server)
        finally:
            _load(protocol, model)(server)

    return asked


def _life(protocol: str) -> Iterator[Case]:
    ok = _good(protocol)[0]
    good: Callable[..., dict[str, Any]] = lambda **body: {"status": ok, **body}  # noqa: E731
    yield _case(
        protocol,
        "load-again",
        _restored(protocol, steps(load=_load(protocol, "controlled"), infer=_infer(protocol))),
        Expected((ok,), {"load": good(), "infer": good()}),
        "controlled",
    )
    yield _case(
        protocol,
        "unload-and-ask",
        _restored(
            protocol,
            steps(
                unload=_unload(protocol, "controlled"),
                gone=_until_gone(protocol),
                infer=_infer(protocol),
            ),
        ),
        Expected(_bad(protocol), {"unload": good()}),
        "controlled",
    )
    yield _case(
        protocol,
        "unload-twice-and-load",
        _restored(
            protocol,
            steps(
                once=_unload(protocol, "controlled"),
                twice=_unload(protocol, "controlled"),
                load=_load(protocol, "controlled"),
                infer=_infer(protocol),
            ),
        ),
        Expected((ok,), {"once": good(), "twice": good(), "load": good(), "infer": good()}),
        "controlled",
    )


def _until_gone(protocol: str) -> Ask:
    """Unloading may go on after it was answered: ask until the model says that it is not ready."""

    def asked(server: Server) -> Answer:
        request = service_pb2.ModelReadyRequest(name="controlled")
        for _ in range(2000):
            if not server.grpc.call("ModelReady", request).body.get("ready"):
                return Answer(_good(protocol)[0], {"gone": True})
        return Answer("STILL_THERE", {"gone": False})

    return asked


def _overrides(protocol: str) -> Iterator[Case]:
    ok = _good(protocol)[0]
    two = json.dumps({**_CONFIG, "max_batch_size": 2})
    config = (
        infer_http(
            "controlled", {"inputs": [json_input(np.ones((3, 1), np.float32), datatype="FP32")]}
        )
        if protocol == "http"
        else infer_grpc(
            add_raw(message("controlled"), np.ones((3, 1), np.float32), datatype="FP32")
        )
    )
    yield _case(
        protocol,
        "load-with-another-configuration",
        _restored(
            protocol, steps(load=_load(protocol, "controlled", config=two), three_rows=config)
        ),
        Expected(_refused(protocol), {"load": {"status": ok}}),
        "controlled",
    )
    for name, parameters in (
        ("load-with-a-configuration-that-is-no-json", {"config": "{"}),
        ("load-with-a-configuration-of-unknown-fields", {"config": '{"nonsense": 1}'}),
        ("load-with-a-file-but-no-configuration", {"file:1/model.onnx": b"garbage"}),
        ("load-with-an-unknown-parameter", {"nonsense": "x"}),
        ("load-with-a-configuration-that-is-no-text", {"config": 1}),
        ("load-with-a-file-outside-its-folder", {"config": two, "file:../../x": b"garbage"}),
    ):
        yield _case(
            protocol,
            name,
            _restored(protocol, _load(protocol, "controlled", **parameters)),
            Expected(_bad(protocol)),
            "controlled",
        )
    yield _case(
        protocol,
        "load-with-another-file",
        _restored(
            protocol,
            steps(
                load=_load(
                    protocol, "controlled", **{"config": two, "file:7/model.onnx": _plus(7)}
                ),
                infer=_infer(protocol),
            ),
        ),
        Expected((ok,), {"load": {"status": ok}, "infer": {"body": {"model_version": "7"}}}),
        "controlled",
    )


def _refused(protocol: str) -> tuple[str, ...]:
    return ("400",) if protocol == "http" else ("INVALID_ARGUMENT",)


def _plus(amount: int) -> bytes:
    """A model that is not in the repository; listing cases must not need the package onnx."""
    from conformance import onnx_models

    return onnx_models.plus(amount)


def _dependents(protocol: str) -> Iterator[Case]:
    ok = _good(protocol)[0]
    unload = _unload(protocol, "dependent", unload_dependents=True)
    yield Case(
        f"{protocol}/repository/unload-with-dependents",
        _restored(
            protocol,
            steps(unload=unload, load=_load(protocol, "supporting")),
            "dependent",
        ),
        Expected((ok,), {"unload": {"status": ok}}),
        extension="model_repository(unload_dependents)",
        models=("dependent", "supporting"),
    )
    yield Case(
        f"{protocol}/repository/unload-without-dependents",
        _restored(
            protocol,
            steps(unload=_unload(protocol, "dependent"), index=_rows(protocol, "supporting")),
            "dependent",
        ),
        Expected((ok,), {"unload": {"status": ok}, "index": {"body": [{"state": "READY"}]}}),
        extension="model_repository",
        models=("dependent", "supporting"),
    )


def _faults(protocol: str) -> Iterator[Case]:
    bad = Expected(_bad(protocol), {"error": ANY})
    yield _case(protocol, "load-an-unknown-model", _load(protocol, "nope"), bad)
    yield _case(
        protocol,
        "unload-an-unknown-model",
        _only_status(_unload(protocol, "nope")),
        Expected((*_good(protocol), *_bad(protocol))),
    )
    yield _case(protocol, "load-a-model-outside", _load(protocol, ".."), bad)
    if protocol == "http":
        for name, body in (
            ("broken", b"{"),
            ("a-list", b"[]"),
            ("parameters-a-list", b'{"parameters": []}'),
        ):
            ask = post("/v2/repository/models/controlled/load", body)
            yield _case(protocol, f"load-with-a-body-{name}", ask, Expected(("400",)))
