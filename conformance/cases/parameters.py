"""The parameters extension: what a client adds to a request reaches the model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, infer_http
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message

_EXTENSION = "parameters"
_NONE: Mapping[str, str] = {}
_TEXT = np.array([b"x"], dtype=np.object_)


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _custom(protocol)
        yield from _reserved(protocol)


def _told(
    protocol: str,
    parameters: Mapping[str, Any],
    *,
    id: str = "",
    headers: Mapping[str, str] = _NONE,
) -> Ask:
    """What the model `tell` says of a request."""
    if protocol == "http":
        body: dict[str, Any] = {"inputs": [json_input(_TEXT, datatype="BYTES")]}
        if parameters:
            body["parameters"] = dict(parameters)
        if id:
            body["id"] = id
        ask = infer_http("tell", body, headers=headers)
    else:
        metadata = tuple(headers.items())
        request = add_raw(message("tell", id=id, **parameters), _TEXT, datatype="BYTES")
        ask = infer_grpc(request, metadata=metadata)

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        data = bytes.fromhex(answer.body["outputs"][0]["hex"])
        told = json.loads(data[4:])
        told["parameters"] = (
            json.loads(told["parameters"])
            if isinstance(told["parameters"], str)
            else told["parameters"]
        )
        return Answer(answer.status, told)

    return asked


def _custom(protocol: str) -> Iterator[Case]:
    good = ("200",) if protocol == "http" else ("OK",)
    for name, parameters in (
        ("none", {}),
        ("a-text", {"colour": "blue"}),
        ("a-whole-number", {"size": 7}),
        ("a-negative-number", {"size": -7}),
        ("a-boolean", {"strict": True}),
        ("a-fraction", {"ratio": 1.5}),
        ("several", {"colour": "blue", "size": 7, "strict": False}),
    ):
        yield Case(
            f"{protocol}/parameters/{name}",
            _told(protocol, parameters),
            Expected(good, {"model": "tell", "greeting": "hello", "parameters": parameters}),
            extension=_EXTENSION,
            models=("tell",),
        )
    yield Case(
        f"{protocol}/parameters/id",
        _told(protocol, {}, id="abc"),
        Expected(good, {"id": "abc"}),
        extension=_EXTENSION,
        models=("tell",),
    )


def _reserved(protocol: str) -> Iterator[Case]:
    good = ("200",) if protocol == "http" else ("OK",)
    yield Case(
        f"{protocol}/parameters/headers-are-not-forwarded-by-default",
        _told(protocol, {}, headers={"x-colour": "blue"}),
        Expected(good, {"parameters": {}}),
        extension=_EXTENSION,
        models=("tell",),
    )
    for name, parameters in (
        ("that-begins-with-triton", {"triton_nonsense": 1}),
        ("headers", {"headers": "x"}),
    ):
        yield Case(
            f"{protocol}/parameters/reserved/{name}",
            _told(protocol, parameters),
            Expected(("200", "400") if protocol == "http" else ("OK", "INVALID_ARGUMENT"), ANY),
            extension=_EXTENSION,
            models=("tell",),
        )
