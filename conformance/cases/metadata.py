"""Metadata of the server and of models, and the model configuration extension."""

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import service_pb2

from conformance.answer import ANY, Answer, Expected
from conformance.ask import by_method, get, rpc
from conformance.case import Ask, Case, Server
from ridgeline.datatypes import DATATYPES

_NOT_FOUND = Expected(("404", "400"))  # 400 from Triton where the version is unknown
_UNKNOWN = Expected(("NOT_FOUND", "INVALID_ARGUMENT"))


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _server()
    for protocol in ("http", "grpc"):
        yield from _models(protocol)
        yield from _configurations(protocol)


def _server() -> Iterator[Case]:
    body = {"name": lambda name: bool(name), "version": lambda text: bool(text), "extensions": ANY}
    named = Expected(("200",), body)
    yield Case("http/metadata/server", _anonymous(get("/v2")), named)
    yield Case("http/metadata/server-with-slash", _anonymous(get("/v2/")), named)
    yield Case("grpc/metadata/server", _anonymous(rpc("ServerMetadata")), Expected(("OK",), body))
    yield Case("http/metadata/server-by-post", by_method("POST", "/v2"), Expected(("405",)))


def _anonymous(ask: Ask) -> Ask:
    """Without what differs between two servers that are both right."""

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        return Answer(answer.status, {key: bool(value) for key, value in answer.body.items()})

    return asked


def _models(protocol: str) -> Iterator[Case]:
    for datatype in DATATYPES:
        name = f"identity_{datatype.lower()}"
        tensor = {"datatype": datatype, "shape": [-1, -1]}
        pattern = {
            "name": name,
            "versions": ["1"],
            "platform": ANY,
            "inputs": [{"name": "INPUT0", **tensor}],
            "outputs": [{"name": "OUTPUT0", **tensor}],
        }
        yield _metadata(protocol, f"datatype/{datatype.lower()}", model=name, pattern=pattern)
    for name, model, version, described in _DESCRIBED:
        yield _metadata(protocol, name, model=model, version=version, pattern=described)
    for name, model, version in _UNKNOWN_MODELS:
        yield _metadata(protocol, name, model=model, version=version, pattern=None)


_DESCRIBED: tuple[tuple[str, str, str, Any], ...] = (
    ("batch-axis", "fixed", "", {"inputs": [{"shape": [-1, 2, 3]}]}),
    ("no-batch-axis", "cube", "", {"inputs": [{"shape": [-1, -1, -1, -1]}]}),
    ("two-inputs", "simple", "", {"inputs": [{"name": "INPUT0"}, {"name": "INPUT1"}]}),
    ("with-version", "simple", "1", {"name": "simple", "versions": ["1"]}),
    ("versions-of-the-policy", "versioned", "", {"versions": ["1", "3"]}),
    ("newest-version-alone", "newest", "", {"versions": ["3"]}),
    ("every-version", "every", "", {"versions": ["1", "2", "3"]}),
    ("reshaped", "reshaped", "", {"inputs": [{"shape": [-1, 1]}]}),
    ("ensemble", "sum_of_sums", "", {"platform": "ensemble"}),
    ("sequence-model-hides-its-state", "accumulator", "", {"inputs": [{"name": "INPUT"}]}),
    ("odd-name", "größe%20", "", {"name": "größe%20"}),
)
_CONFIGURED: tuple[tuple[str, str, str, Any], ...] = (
    ("batching", "fixed", "", {"max_batch_size": 4}),
    ("with-version", "simple", "1", {"name": "simple", "backend": "onnxruntime"}),
    ("version-policy", "versioned", "", {"version_policy": {"specific": ANY}}),
    ("dynamic-batching", "crowded", "", {"dynamic_batching": {"default_queue_policy": ANY}}),
    ("labels", "labelled", "", {"output": [{"label_filename": "labels.txt"}]}),
    ("sequence-batching", "accumulator", "", {"sequence_batching": {"state": [ANY]}}),
    ("ensemble", "sum_of_sums", "", {"ensemble_scheduling": {"step": [ANY, ANY]}}),
    ("reshape", "reshaped", "", {"input": [{"reshape": ANY}]}),
    ("optional-input", "optional", "", {"input": [ANY, {"optional": True}]}),
    ("python-backend", "tell", "", {"backend": "python"}),
)
_UNKNOWN_MODELS = (
    ("unknown-model", "nope", ""),
    ("unknown-version", "simple", "7"),
    ("version-outside-its-policy", "versioned", "2"),
    ("version-that-is-no-number", "simple", "one"),
    ("version-zero", "simple", "0"),
)


def _metadata(protocol: str, name: str, *, model: str, pattern: Any, version: str = "") -> Case:
    ask = (
        get(_path(model, version))
        if protocol == "http"
        else _whole_numbers(
            rpc("ModelMetadata", service_pb2.ModelMetadataRequest(name=model, version=version))
        )
    )
    return Case(
        f"{protocol}/metadata/model/{name}",
        ask,
        _expected(protocol, pattern),
        models=(model,) if pattern else (),
    )


def _configurations(protocol: str) -> Iterator[Case]:
    for name, model, version, pattern in _CONFIGURED:
        yield _config(protocol, name, model=model, version=version, pattern=pattern)
    for name, model, version in _UNKNOWN_MODELS:
        yield _config(protocol, name, model=model, version=version, pattern=None)


def _config(protocol: str, name: str, *, model: str, pattern: Any, version: str = "") -> Case:
    request = service_pb2.ModelConfigRequest(name=model, version=version)
    ask = (
        get(_path(model, version) + "/config")
        if protocol == "http"
        else rpc("ModelConfig", request)
    )
    if protocol == "grpc" and pattern:
        pattern = {"config": pattern}
    return Case(
        f"{protocol}/config/{name}",
        _as_far_as_told(ask, pattern),
        _expected(protocol, pattern),
        extension="model_configuration",
        models=(model,) if pattern else (),
    )


def _as_far_as_told(ask: Ask, pattern: Any) -> Ask:
    """Only what the case looks at: servers complete a configuration each in their own way."""

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed or pattern is None:
            return answer
        return Answer(answer.status, _picked(answer.body, pattern))

    return asked


def _picked(body: Any, pattern: Any) -> Any:
    if isinstance(pattern, dict) and isinstance(body, dict):
        return {key: _picked(body[key], inner) for key, inner in pattern.items() if key in body}
    if isinstance(pattern, list) and isinstance(body, list) and len(pattern) == len(body):
        return [_picked(item, inner) for item, inner in zip(body, pattern, strict=True)]
    return "there" if pattern is ANY else body


def _whole_numbers(ask: Ask) -> Ask:
    """Sizes as numbers: the JSON form of protobuf writes those of 64 bits as texts."""

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if not answer.failed:
            for tensor in (*answer.body.get("inputs", []), *answer.body.get("outputs", [])):
                tensor["shape"] = [int(size) for size in tensor.get("shape", [])]
        return answer

    return asked


def _path(model: str, version: str) -> str:
    quoted = model.replace("%", "%25").replace("ö", "%C3%B6").replace("ß", "%C3%9F")
    return f"/v2/models/{quoted}" + (f"/versions/{version}" if version else "")


def _expected(protocol: str, pattern: Any) -> Expected:
    if pattern is None:
        return _NOT_FOUND if protocol == "http" else _UNKNOWN
    return Expected(("200",) if protocol == "http" else ("OK",), pattern)
