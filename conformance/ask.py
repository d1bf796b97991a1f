"""The questions that most cases ask, as functions of the server they are put to."""

from collections.abc import Mapping
from typing import Any

from conformance.answer import Answer
from conformance.case import Ask, Server


def get(path: str, **headers: str) -> Ask:
    """GET a path."""
    return lambda server: server.http.get(path, **headers)


def post(path: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Ask:
    """POST bytes as they are, or anything else as JSON, to a path."""
    return lambda server: server.http.post(path, body, headers=headers)


def by_method(method: str, path: str) -> Ask:
    """Any method on a path, without a body."""
    return lambda server: server.http.ask(method, path)


def infer_http(model: str, body: Any, **options: Any) -> Ask:
    """An inference over HTTP; `options` as `HttpProbe.infer` has them."""
    return lambda server: server.http.infer(model, body, **options)


def rpc(method: str, request: Any = None, **options: Any) -> Ask:
    """A unary call; `options` as `GrpcProbe.call` has them."""
    return lambda server: server.grpc.call(method, request, **options)


def infer_grpc(request: Any, **options: Any) -> Ask:
    """A ModelInfer."""
    return lambda server: server.grpc.call("ModelInfer", request, **options)


def steps(**asks: Ask) -> Ask:
    """One question after the other; the body holds each answer by its name.

    The status is that of the last one.
    """

    def ask(server: Server) -> Answer:
        answers = {name: each(server) for name, each in asks.items()}
        last = list(answers.values())[-1]
        body = {name: each.to_json() for name, each in answers.items()}
        return Answer(last.status, body)

    return ask
