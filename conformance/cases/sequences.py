"""The sequence extension: requests that belong together, and state between them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Expected
from conformance.ask import infer_grpc, infer_http, steps
from conformance.case import Ask, Case
from conformance.samples import add_raw, hexadecimal, json_input, message

_EXTENSION = "sequence"


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for number, protocol in enumerate(("http", "grpc")):
        yield from _right(protocol, 1000 * (number + 1))
        yield from _wrong(protocol, 1000 * (number + 1))


def _step(protocol: str, value: int, id: Any, *, start: bool = False, end: bool = False) -> Ask:
    parameters: dict[str, Any] = {"sequence_start": start, "sequence_end": end}
    if id is not None:
        parameters["sequence_id"] = id
    return _ask(protocol, np.array([[value]], dtype=np.int32), parameters)


def _ask(protocol: str, array: np.ndarray, parameters: dict[str, Any]) -> Ask:
    if protocol == "grpc":
        request = message("accumulator", **parameters)
        return infer_grpc(add_raw(request, array, datatype="INT32", name="INPUT"))
    tensor = json_input(array, datatype="INT32", name="INPUT")
    return infer_http("accumulator", {"inputs": [tensor], "parameters": parameters})


def _sum(value: int) -> dict[str, Any]:
    hexed = hexadecimal(np.array([[value]], dtype=np.int32))
    return {"body": {"outputs": [{"name": "OUTPUT", "hex": hexed}]}}


def _case(protocol: str, name: str, ask: Ask, expected: Expected) -> Case:
    return Case(
        f"{protocol}/sequence/{name}",
        ask,
        expected,
        extension=_EXTENSION,
        models=("accumulator",),
    )


def _right(protocol: str, id: int) -> Iterator[Case]:
    good = ("200",) if protocol == "http" else ("OK",)
    yield _case(
        protocol,
        "adds-up",
        steps(
            one=_step(protocol, 1, id, start=True),
            two=_step(protocol, 2, id),
            three=_step(protocol, 3, id, end=True),
        ),
        Expected(good, {"one": _sum(1), "two": _sum(3), "three": _sum(6)}),
    )
    yield _case(
        protocol,
        "two-at-a-time-stay-apart",
        steps(
            a=_step(protocol, 1, id + 1, start=True),
            b=_step(protocol, 100, id + 2, start=True),
            aa=_step(protocol, 1, id + 1, end=True),
            bb=_step(protocol, 100, id + 2, end=True),
        ),
        Expected(good, {"a": _sum(1), "b": _sum(100), "aa": _sum(2), "bb": _sum(200)}),
    )
    yield _case(
        protocol,
        "of-one-request",
        steps(one=_step(protocol, 5, id + 3, start=True, end=True)),
        Expected(good, {"one": _sum(5)}),
    )
    yield _case(
        protocol,
        "begun-again",
        steps(
            one=_step(protocol, 1, id + 4, start=True),
            again=_step(protocol, 10, id + 4, start=True),
            last=_step(protocol, 1, id + 4, end=True),
        ),
        Expected(good, {"again": _sum(10), "last": _sum(11)}),
    )
    yield _case(
        protocol,
        "ended-and-begun-again",
        steps(
            one=_step(protocol, 1, id + 5, start=True, end=True),
            again=_step(protocol, 10, id + 5, start=True, end=True),
        ),
        Expected(good, {"one": _sum(1), "again": _sum(10)}),
    )
    yield _case(
        protocol,
        "id-that-is-a-text",
        steps(
            one=_step(protocol, 1, f"a-{id}", start=True),
            two=_step(protocol, 2, f"a-{id}", end=True),
        ),
        Expected(good, {"one": _sum(1), "two": _sum(3)}),
    )


def _wrong(protocol: str, id: int) -> Iterator[Case]:
    bad = Expected(("400",) if protocol == "http" else ("INVALID_ARGUMENT",), {"error": ANY})
    yield _case(protocol, "without-a-start", _step(protocol, 1, id + 50), bad)
    yield _case(protocol, "without-an-id", _step(protocol, 1, None, start=True), bad)
    yield _case(protocol, "id-zero", _step(protocol, 1, 0, start=True), bad)
    yield _case(protocol, "id-an-empty-text", _step(protocol, 1, "", start=True), bad)
    yield _case(
        protocol,
        "after-its-end",
        steps(
            one=_step(protocol, 1, id + 51, start=True, end=True),
            two=_step(protocol, 1, id + 51),
        ),
        Expected(bad.statuses),
    )
    two = np.array([[1], [2]], dtype=np.int32)
    parameters = {"sequence_id": id + 52, "sequence_start": True, "sequence_end": True}
    yield _case(protocol, "batch-of-two", _ask(protocol, two, parameters), bad)
    one = two[:1]
    for name, wrong in (
        ("id-a-boolean", {**parameters, "sequence_id": True}),
        ("id-a-fraction", {**parameters, "sequence_id": 1.5}),
        ("start-a-text", {**parameters, "sequence_start": "yes"}),
        ("end-a-number", {**parameters, "sequence_end": 1}),
    ):
        yield _case(protocol, name, _ask(protocol, one, wrong), bad)
