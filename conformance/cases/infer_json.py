"""Inference over HTTP with JSON: every datatype, every form."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Expected
from conformance.ask import infer_http
from conformance.case import Case
from conformance.cases.http_requests import BAD, ONES, ROW, answered, simple_input
from conformance.samples import BINARY_ONLY, json_input, output, sample
from ridgeline.datatypes import DATATYPES


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _json_datatypes()
    yield from _json_forms()
    yield from _nested()
    yield from _versions()
    yield from _strings()


def _json_datatypes() -> Iterator[Case]:
    for datatype in DATATYPES:
        values, name = sample(datatype).reshape(1, 3), datatype.lower()
        for kind, shape in (("identity", (1, 3)), ("plain", (3, 1))):
            array = values.reshape(shape)
            refused = datatype in BINARY_ONLY
            body = {"inputs": [json_input(_as_json(array), datatype=datatype)]}
            yield Case(
                f"http/infer/json/{kind}/{name}" + ("-data-is-refused" if refused else ""),
                infer_http(f"{kind}_{name}", body),
                BAD if refused else answered(output(array, datatype=datatype) | {"form": "json"}),
                models=(f"{kind}_{name}",),
            )


def _as_json(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.itemsize == 2 and _halves(array) else array


def _halves(array: np.ndarray) -> bool:
    return array.dtype in (DATATYPES["FP16"].numpy, DATATYPES["BF16"].numpy)


_BOTH = {"inputs": [simple_input("INPUT0"), simple_input("INPUT1")]}
_SUM = output(ONES + ONES, datatype="INT32")
_DIFFERENCE = output(ONES - ONES, datatype="INT32", name="OUTPUT1")
_EIGHT = {"inputs": [simple_input("INPUT0", 8), simple_input("INPUT1", 8)]}


def _json_forms() -> Iterator[Case]:
    both = answered(_SUM, _DIFFERENCE)
    for name, body, expected in (
        ("all-outputs-by-default", _BOTH, _named(both, model_name="simple", model_version="1")),
        ("one-output", _outputs("OUTPUT1"), answered(_DIFFERENCE)),
        ("outputs-in-other-order", _outputs("OUTPUT1", "OUTPUT0"), answered(ANY, ANY)),
        ("output-asked-for-twice", _outputs("OUTPUT0", "OUTPUT0"), Expected(("200", "400"))),
        ("empty-list-of-outputs", {**_BOTH, "outputs": []}, both),
        ("inputs-in-other-order", {"inputs": _BOTH["inputs"][::-1]}, both),
        ("id-comes-back", {**_BOTH, "id": "a1 ß"}, _named(both, id="a1 ß")),
        ("empty-id", {**_BOTH, "id": ""}, both),
        ("no-id-gives-none", _BOTH, Expected(("200",), lambda body: "id" not in body)),
        ("parameters", {**_BOTH, "parameters": {"a": "b", "c": 1, "d": True}}, both),
        ("unknown-field", {**_BOTH, "comment": "hello"}, both),
        ("batch-of-eight", _EIGHT, answered(ANY, ANY)),
    ):
        ask = infer_http("simple", body)
        yield Case(f"http/infer/json/{name}", ask, expected, models=("simple",))


def _named(expected: Expected, **fields: str) -> Expected:
    return Expected(expected.statuses, {**expected.body, **fields})


def _nested() -> Iterator[Case]:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 2, 3]}
    six = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 3)
    for name, data in (
        ("nested", [[[1, 2, 3], [4, 5, 6]]]),
        ("flat", [1, 2, 3, 4, 5, 6]),
        ("partly-nested", [[1, 2, 3], [4, 5, 6]]),
    ):
        yield Case(
            f"http/infer/json/{name}-data",
            infer_http("fixed", {"inputs": [{**tensor, "data": data}]}),
            answered(output(six, datatype="FP32")),
            models=("fixed",),
        )


def _versions() -> Iterator[Case]:
    body = {"inputs": [json_input(ROW, datatype="FP32")]}
    for version, number in (("1", 1), ("3", 3), ("", 3)):
        yield Case(
            f"http/infer/json/version-{version or 'by-default'}",
            infer_http("versioned", body, version=version),
            answered(output(ROW + number, datatype="FP32"), model_version=version or "3"),
            models=("versioned",),
        )
    yield Case(
        "http/infer/json/model-with-an-odd-name",
        infer_http("gr%C3%B6%C3%9Fe%2520", body),
        answered(output(ROW + 1, datatype="FP32"), model_name="größe%20"),
        models=("größe%20",),
    )


def _strings() -> Iterator[Case]:
    words = np.array([[str(n).encode() for n in range(16)]], dtype=np.object_)
    twice = np.array([[str(2 * n).encode() for n in range(16)]], dtype=np.object_)
    inputs = [json_input(words, datatype="BYTES", name=name) for name in ("INPUT0", "INPUT1")]
    yield Case(
        "http/infer/json/strings-that-are-numbers",
        infer_http("simple_string", {"inputs": inputs}),
        answered(output(twice, datatype="BYTES"), ANY),
        models=("simple_string",),
    )


def _outputs(*names: str) -> dict[str, Any]:
    return {**_BOTH, "outputs": [{"name": name} for name in names]}
