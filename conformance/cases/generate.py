"""The generate extension: JSON of a model's own inputs in, JSON or server-sent events out."""

import json
from collections.abc import Iterator
from typing import Any

from conformance.answer import ANY, Answer, Expected
from conformance.ask import by_method, post
from conformance.case import Ask, Case, Server

_BAD = Expected(("400",), {"error": ANY})
_PATH = "/v2/models/{}/{}"


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _generate()
    yield from _stream()
    yield from _faults()


def _ask(model: str, body: Any, *, version: str = "") -> Ask:
    return post(_path(model, "generate", version), body)


def _path(model: str, what: str, version: str = "") -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + f"/{what}"


def _generate() -> Iterator[Case]:
    for name, model, body, expected in (
        ("one-text", "write", {"text_input": "hello"}, {"text_output": "hello"}),
        ("optional-input", "write", {"text_input": "a b c", "limit": 1}, {"text_output": "a"}),
        (
            "names-model-and-version",
            "write",
            {"text_input": "a"},
            {"model_name": "write", "model_version": "1"},
        ),
        ("list-of-one", "write", {"text_input": ["hello"]}, {"text_output": "hello"}),
        ("id-comes-back", "write", {"text_input": "a", "id": "x1"}, {"id": "x1"}),
        ("several-numbers", "plain_fp32", {"INPUT0": [1.5, 2.5]}, ANY),
        ("nested-lists", "write", {"text_input": [["a"]]}, {"text_output": "a"}),
        (
            "parameters",
            "write",
            {"text_input": "a", "parameters": {"limit": 1}},
            {"text_output": "a"},
        ),
        (
            "unknown-key-is-a-parameter",
            "write",
            {"text_input": "a", "colour": "blue"},
            {"text_output": "a"},
        ),
    ):
        statuses = ("200", "400") if expected is ANY else ("200",)
        yield Case(
            f"http/generate/{name}",
            _ask(model, body),
            Expected(statuses, expected),
            models=(model,),
        )
    yield Case(
        "http/generate/version",
        _ask("write", {"text_input": "hello"}, version="1"),
        Expected(("200",), {"text_output": "hello"}),
        models=("write",),
    )


def _events(model: str, body: Any) -> Ask:
    """The events of a stream; the data of each is JSON."""

    def asked(server: Server) -> Answer:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = _path(model, "generate_stream")
        status, fields, data = server.http.exchange("POST", path, body=payload)
        kind = fields.get_content_type()
        if kind != "text/event-stream":
            return Answer(str(status), json.loads(data) if data else None)
        events = [
            json.loads(event.removeprefix("data:").strip())
            for event in data.decode().split("\n\n")
            if event.strip()
        ]
        return Answer(str(status), events)

    return asked


def _stream() -> Iterator[Case]:
    words = [{"text_output": word, "model_name": "write"} for word in ("a", "b", "c")]
    for name, body, expected in (
        ("one-word", {"text_input": "a"}, words[:1]),
        ("three-words", {"text_input": "a b c"}, words),
        ("limited", {"text_input": "a b c", "limit": 2}, words[:2]),
        ("nested-lists", {"text_input": [["a"]]}, words[:1]),
    ):
        yield Case(
            f"http/generate-stream/{name}",
            _events("write", body),
            Expected(("200",), expected),
            models=("write",),
        )
    yield Case(
        "http/generate-stream/no-words",
        _events("write", {"text_input": " "}),
        Expected(("200",)),
        models=("write",),
    )


def _faults() -> Iterator[Case]:
    yield Case(
        "http/generate/several-responses",
        _ask("write", {"text_input": "a b"}),
        Expected(("200", "400", "500"), {"error": ANY}),
        models=("write",),
    )
    for name, body in (
        ("missing-input", {}),
        ("input-of-another-kind", {"text_input": 7}),
        ("input-null", {"text_input": None}),
        ("input-an-object", {"text_input": {"a": 1}}),
        ("broken-json", b'{"text_input": '),
        ("no-object", b"[]"),
        ("empty-body", b""),
    ):
        yield Case(f"http/generate/{name}", _ask("write", body), _BAD, models=("write",))
        yield Case(f"http/generate-stream/{name}", _events("write", body), _BAD, models=("write",))
    for what in ("generate", "generate_stream"):
        name = what.replace("_", "-")
        unknown = post(_path("nope", what), {"text_input": "a"})
        yield Case(f"http/{name}/unknown-model", unknown, Expected(("404", "400"), {"error": ANY}))
        wrong = post(_path("write", what, "7"), {"text_input": "a"})
        yield Case(
            f"http/{name}/unknown-version",
            wrong,
            Expected(("404", "400"), {"error": ANY}),
            models=("write",),
        )
        yield Case(
            f"http/{name}/by-get", by_method("GET", _path("write", what)), Expected(("405",))
        )
