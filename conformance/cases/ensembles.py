"""Ensembles and Python models: several models in one request, errors of a model's own."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, infer_http
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message, output

_A = np.arange(16, dtype=np.int32).reshape(1, 16)
_B = np.full((1, 16), 3, dtype=np.int32)
# The way that the model `fail` is asked for, and the statuses of Triton's codes.
_WAYS = {
    "error": ("500", "INTERNAL"),
    "raise": ("500", "INTERNAL"),
    "unknown": ("400", "UNKNOWN"),
    "internal": ("500", "INTERNAL"),
    "not_found": ("404", "NOT_FOUND"),
    "invalid_arg": ("400", "INVALID_ARGUMENT"),
    "unavailable": ("503", "UNAVAILABLE"),
    "unsupported": ("501", "UNIMPLEMENTED"),
    "already_exists": ("400", "ALREADY_EXISTS"),
    "cancelled": ("400", "CANCELLED"),
}


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _ensembles(protocol)
        yield from _python(protocol)


def _ask(protocol: str, model: str, outputs: Any = (), **arrays: Any) -> Ask:
    datatypes = {"int32": "INT32", "int64": "INT64", "object": "BYTES"}
    if protocol == "http":
        inputs = [
            json_input(array, datatype=datatypes[array.dtype.name], name=name)
            for name, array in arrays.items()
        ]
        body: dict[str, Any] = {"inputs": inputs}
        if outputs:
            body["outputs"] = [{"name": name} for name in outputs]
        return infer_http(model, body)
    request = message(model)
    for name, array in arrays.items():
        add_raw(request, array, datatype=datatypes[array.dtype.name], name=name)
    for name in outputs:
        request.outputs.add(name=name)
    return infer_grpc(request)


def _by_name(ask: Ask) -> Ask:
    """The outputs of an ensemble come in an order that nobody promises."""

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if not answer.failed:
            answer.body["outputs"].sort(key=lambda made: made["name"])
        return answer

    return asked


def _ensembles(protocol: str) -> Iterator[Case]:
    good = ("200",) if protocol == "http" else ("OK",)
    bad = ("400",) if protocol == "http" else ("INVALID_ARGUMENT",)
    double_a = output(2 * _A, datatype="INT32")
    double_b = output(2 * _B, datatype="INT32", name="OUTPUT1")

    def case(name: str, ask: Ask, expected: Expected, model: str = "sum_of_sums") -> Case:
        return Case(f"{protocol}/ensemble/{name}", _by_name(ask), expected, models=(model,))

    both = {"INPUT0": _A, "INPUT1": _B}
    named = {"model_name": "sum_of_sums", "model_version": "1", "outputs": [double_a, double_b]}
    yield case("two-steps", _ask(protocol, "sum_of_sums", **both), Expected(good, named))
    yield case(
        "one-output",
        _ask(protocol, "sum_of_sums", ("OUTPUT1",), **both),
        Expected(good, {"outputs": [double_b]}),
    )
    batch = {name: np.repeat(array, 8, axis=0) for name, array in both.items()}
    yield case("a-batch", _ask(protocol, "sum_of_sums", **batch), Expected(good))
    large = {name: np.repeat(array, 9, axis=0) for name, array in both.items()}
    yield case(
        "a-batch-beyond-the-most",
        _ask(protocol, "sum_of_sums", **large),
        Expected(bad, {"error": ANY}),
    )
    yield case(
        "missing-input", _ask(protocol, "sum_of_sums", INPUT0=_A), Expected(bad, {"error": ANY})
    )
    inside = {"sum", "difference"}
    yield case(
        "tensor-of-the-inside",
        _ask(protocol, "sum_of_sums", (min(inside),), **both),
        Expected(bad, {"error": ANY}),
    )
    index = np.array([[1]], dtype=np.int64)
    twenty = output(np.array([[20]], np.float32), datatype="FP32")
    yield case(
        "of-other-models",
        _ask(protocol, "failing_ensemble", INPUT0=index),
        Expected(good, {"outputs": [twenty]}),
        "failing_ensemble",
    )
    yield case(
        "step-that-fails",
        _ask(protocol, "failing_ensemble", INPUT0=index + 5),
        Expected(("500",) if protocol == "http" else ("INTERNAL",), {"error": ANY}),
        "failing_ensemble",
    )


def _python(protocol: str) -> Iterator[Case]:
    good = ("200",) if protocol == "http" else ("OK",)
    text = np.array([b"text"], dtype=np.object_)
    yield Case(
        f"{protocol}/python/answers",
        _ask(protocol, "fail", INPUT0=text),
        Expected(good, {"outputs": [output(text, datatype="BYTES")]}),
        models=("fail",),
    )
    for way, (http, grpc) in _WAYS.items():
        yield Case(
            f"{protocol}/python/fails-by-{way.replace('_', '-')}",
            _ask(protocol, "fail", INPUT0=np.array([way.encode()], dtype=np.object_)),
            Expected((http if protocol == "http" else grpc,), {"error": ANY}),
            models=("fail",),
        )
