"""Inference over HTTP: shapes, bodies that are no JSON, content types, methods."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import Expected
from conformance.ask import by_method, infer_http, post
from conformance.case import Case
from conformance.cases.http_requests import BAD, ROW, answered, dumped
from conformance.samples import json_input, output


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _shapes()
    yield from _optional()
    yield from _bodies()
    yield from _headers()


_SHAPES: tuple[tuple[str, str, tuple[int, ...], Expected | None], ...] = (
    ("free-axis-of-one", "identity_fp32", (1, 1), None),
    ("free-axis-of-a-thousand", "identity_fp32", (2, 1000), None),
    ("free-axis-of-zero", "identity_fp32", (2, 0), None),
    ("every-axis-free", "cube", (1, 2, 3, 4), None),
    ("every-axis-zero", "cube", (0, 0, 0, 0), None),
    ("one-axis-zero", "cube", (2, 0, 3, 4), None),
    ("largest-batch", "fixed", (4, 2, 3), None),
    ("batch-beyond-the-most", "fixed", (5, 2, 3), BAD),
    ("other-size", "fixed", (1, 2, 4), BAD),
    ("swapped-axes", "fixed", (1, 3, 2), BAD),
    ("too-few-axes", "fixed", (2, 3), BAD),
    ("too-many-axes", "fixed", (1, 1, 2, 3), BAD),
    ("too-few-axes-without-a-batch-axis", "cube", (2, 3, 4), BAD),
    ("reshaped-to-a-vector", "reshaped", (3, 1), None),
    ("reshaped-given-as-a-vector", "reshaped", (3,), BAD),
)


def _shapes() -> Iterator[Case]:
    for name, model, shape, expected in _SHAPES:
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        yield Case(
            f"http/infer/shape/{name}",
            infer_http(model, {"inputs": [json_input(array, datatype="FP32")]}),
            expected or answered(output(array, datatype="FP32")),
            models=(model,),
        )


def _optional() -> Iterator[Case]:
    yield Case(
        "http/infer/optional-input-given",
        infer_http("optional", {"inputs": [_vector("INPUT0", [1, 2]), _vector("INPUT1", [10])]}),
        answered(output(np.array([11, 12], np.float32), datatype="FP32")),
        models=("optional",),
    )
    yield Case(
        "http/infer/optional-input-left-out",
        infer_http("optional", {"inputs": [_vector("INPUT0", [1, 2])]}),
        answered(output(np.array([101, 102], np.float32), datatype="FP32")),
        models=("optional",),
    )


def _vector(name: str, values: list[float]) -> dict[str, Any]:
    return json_input(np.array(values, np.float32), datatype="FP32", name=name)


def _with_data(number: bytes) -> bytes:
    return (
        b'{"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1], "data": ['
        + number
        + b"]}]}"
    )


def _deep(depth: int) -> bytes:
    return _with_data(b"[" * depth + b"1" + b"]" * depth)


_PATH = "/v2/models/identity_fp32/infer"
_BODIES = (
    ("empty-body", b""),
    ("no-json", b"hello"),
    ("cut-off-json", b'{"inputs": [{"name": "INPUT0"'),
    ("json-then-more", b'{"inputs": []} trailing'),
    ("a-list", b"[]"),
    ("a-text", b'"hello"'),
    ("a-number", b"1"),
    ("null", b"null"),
    ("bytes-that-are-no-text", b"\xff\xfe\x00"),
    ("nested-a-hundred-thousand-deep", b"[" * 100_000),
    ("objects-a-hundred-thousand-deep", b'{"a":' * 100_000),
    ("data-nested-ten-thousand-deep", _deep(10_000)),
    ("a-number-of-ten-thousand-digits", _with_data(b"1" * 10_000)),
    ("nan-in-json", _with_data(b"NaN")),
    ("infinity-in-json", _with_data(b"Infinity")),
    ("a-number-with-a-leading-zero", _with_data(b"01")),
    ("a-single-quoted-name", b"{'inputs': []}"),
    ("a-lone-surrogate", b'{"inputs": [], "id": "\\ud800"}'),
)


def _bodies() -> Iterator[Case]:
    for name, data in _BODIES:
        yield Case(f"http/infer/body/{name}", post(_PATH, data), BAD, models=("identity_fp32",))


def _headers() -> Iterator[Case]:
    good = {"inputs": [json_input(ROW, datatype="FP32")]}
    yield Case(
        "http/infer/body/a-byte-order-mark",
        post(_PATH, b"\xef\xbb\xbf" + dumped(good)),
        Expected(("200", "400")),
        models=("identity_fp32",),
    )
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"):
        yield Case(
            f"http/infer/content-type/{kind}",
            infer_http("identity_fp32", good, headers={"Content-Type": kind}),
            answered(output(ROW, datatype="FP32")),
            models=("identity_fp32",),
        )
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        name = f"http/infer/by-{method.lower()}"
        yield Case(name, by_method(method, _PATH), Expected(("405", "400")))
