"""Inference over HTTP with JSON, and every way to get it wrong."""

from collections.abc import Iterator
from typing import Any

from conformance.answer import ANY, Expected
from conformance.ask import infer_http
from conformance.case import Case
from conformance.cases.http_requests import BAD, ROW
from conformance.samples import json_input


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _inputs()
    yield from _fields()
    yield from _elements()
    yield from _names()


def _without(tensor: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tensor.items() if name != key}


_GOOD = json_input(ROW, datatype="FP32")
_INPUTS: tuple[tuple[str, list[Any]], ...] = (
    ("no-inputs", []),
    ("input-twice", [_GOOD, _GOOD]),
    ("unknown-input", [{**_GOOD, "name": "INPUT7"}]),
    ("additional-input", [_GOOD, {**_GOOD, "name": "INPUT7"}]),
    ("input-without-a-name", [_without(_GOOD, "name")]),
    ("input-without-a-datatype", [_without(_GOOD, "datatype")]),
    ("input-without-a-shape", [_without(_GOOD, "shape")]),
    ("input-without-data", [_without(_GOOD, "data")]),
    ("name-that-is-no-text", [{**_GOOD, "name": 7}]),
    ("datatype-that-is-no-text", [{**_GOOD, "datatype": 7}]),
    ("shape-that-is-no-list", [{**_GOOD, "shape": 2}]),
    ("shape-of-texts", [{**_GOOD, "shape": ["1", "2"]}]),
    ("shape-of-fractions", [{**_GOOD, "shape": [1, 2.5]}]),
    ("data-that-is-no-list", [{**_GOOD, "data": 1.5}]),
    ("data-null", [{**_GOOD, "data": None}]),
    ("unknown-datatype", [{**_GOOD, "datatype": "FP8"}]),
    ("lower-case-datatype", [{**_GOOD, "datatype": "fp32"}]),
    ("other-datatype", [{**_GOOD, "datatype": "INT32", "data": [1, 2]}]),
    ("too-few-elements", [{**_GOOD, "data": [1.5]}]),
    ("too-many-elements", [{**_GOOD, "data": [1, 2, 3]}]),
    ("no-elements", [{**_GOOD, "data": []}]),
    ("ragged-data", [{**_GOOD, "shape": [2, 2], "data": [[1, 2, 3], [4]]}]),
    ("text-for-a-number", [{**_GOOD, "data": ["1", "2"]}]),
    ("boolean-for-a-number", [{**_GOOD, "data": [True, 2]}]),
    ("null-for-a-number", [{**_GOOD, "data": [None, 2]}]),
    ("object-for-a-number", [{**_GOOD, "data": [{}, 2]}]),
    ("negative-size", [{**_GOOD, "shape": [-1, 2]}]),
    ("shape-whose-product-overflows", [{**_GOOD, "shape": [2**33, 2**33]}]),
    ("size-beyond-64-bits", [{**_GOOD, "shape": [1, 2**64]}]),
    ("empty-shape", [{**_GOOD, "shape": [], "data": [1]}]),
    ("shape-of-other-rank", [{**_GOOD, "shape": [2]}]),
    ("batch-of-zero", [{**_GOOD, "shape": [0, 2], "data": []}]),
    ("batch-beyond-the-most", [{**_GOOD, "shape": [9, 1], "data": [0] * 9}]),
    ("inputs-that-are-no-objects", [1, 2]),
)
_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no-inputs-field", {}),
    ("inputs-that-are-no-list", {"inputs": {"name": "INPUT0"}}),
    ("inputs-null", {"inputs": None}),
    ("outputs-that-are-no-list", {"inputs": [_GOOD], "outputs": {"name": "OUTPUT0"}}),
    ("output-without-a-name", {"inputs": [_GOOD], "outputs": [{}]}),
    ("unknown-output", {"inputs": [_GOOD], "outputs": [{"name": "OUTPUT7"}]}),
    ("id-that-is-no-text", {"inputs": [_GOOD], "id": 7}),
    ("parameters-that-are-no-object", {"inputs": [_GOOD], "parameters": [1]}),
    ("parameter-that-is-a-list", {"inputs": [_GOOD], "parameters": {"a": [1]}}),
    ("parameter-that-is-an-object", {"inputs": [_GOOD], "parameters": {"a": {}}}),
    ("parameter-that-is-null", {"inputs": [_GOOD], "parameters": {"a": None}}),
)
_ELEMENTS = (
    ("INT8", 128),
    ("INT8", -129),
    ("UINT8", 256),
    ("UINT8", -1),
    ("INT16", 2**15),
    ("UINT16", 2**16),
    ("INT32", 2**31),
    ("UINT32", 2**32),
    ("UINT32", -1),
    ("INT64", 2**63),
    ("UINT64", 2**64),
    ("UINT64", -1),
    ("INT32", 1.5),
    ("INT64", 1e3),
    ("FP32", 1e39),
    ("BOOL", 1),
    ("BOOL", "true"),
    ("BYTES", 1),
)


def _inputs() -> Iterator[Case]:
    for name, inputs in _INPUTS:
        yield _faulty(f"json/{name}", "identity_fp32", {"inputs": inputs})


def _fields() -> Iterator[Case]:
    for name, fields in _FIELDS:
        yield _faulty(f"json/{name}", "identity_fp32", fields)


def _elements() -> Iterator[Case]:
    for datatype, value in _ELEMENTS:
        tensor = {"name": "INPUT0", "datatype": datatype, "shape": [1, 1], "data": [value]}
        spelled = str(value).replace("+", "")
        name = f"json/element-that-does-not-fit/{datatype.lower()}-{spelled}"
        yield _faulty(name, f"identity_{datatype.lower()}", {"inputs": [tensor]})


def _names() -> Iterator[Case]:
    for model, version, name in (
        ("nope", "", "unknown-model"),
        ("identity_fp32", "7", "unknown-version"),
        ("identity_fp32", "one", "version-that-is-no-number"),
        ("versioned", "2", "version-outside-its-policy"),
    ):
        ask = infer_http(model, {"inputs": [_GOOD]}, version=version)
        yield Case(f"http/infer/{name}", ask, Expected(("404", "400"), {"error": ANY}))
    index = {"name": "INPUT0", "datatype": "INT64", "shape": [1, 1], "data": [3]}
    yield Case(
        "http/infer/model-that-fails-while-it-runs",
        infer_http("lookup", {"inputs": [index]}),
        Expected(("500",), {"error": ANY}),
        models=("lookup",),
    )


def _faulty(name: str, model: str, body: Any, **options: Any) -> Case:
    return Case(f"http/infer/{name}", infer_http(model, body, **options), BAD, models=(model,))
