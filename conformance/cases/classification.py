"""The classification extension: an output as its largest values, with index and label."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Expected
from conformance.ask import infer_grpc, infer_http
from conformance.case import Case
from conformance.repository import LABELS
from conformance.samples import add_raw, json_input, message, output, set_parameters

_EXTENSION = "classification"
_SCORES = np.array([[0.25, 8.5, -1.0, 3.0]], dtype=np.float32)
_ORDER = (1, 3, 0, 2)


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _right(protocol)
        yield from _wrong(protocol)


def _right(protocol: str) -> Iterator[Case]:
    for name, model, count in (
        ("best", "labelled", 1),
        ("best-three", "labelled", 3),
        ("as-many-as-there-are", "labelled", 4),
        ("more-than-there-are", "labelled", 100),
        ("without-labels", "unlabelled", 2),
    ):
        yield _case(protocol, name, model, _SCORES, count, _texts(model, count=min(count, 4)))
    batch = np.concatenate([_SCORES, -_SCORES])
    rows = [["8.500000:1:dog"], ["1.000000:2:bird"]]
    yield _case(protocol, "each-row-of-a-batch", "labelled", batch, 1, _bytes(rows))
    same = np.zeros((1, 4), dtype=np.float32)
    yield _case(protocol, "equal-scores", "unlabelled", same, 2, None)
    numbers = np.array([[5, -7, 9]], dtype=np.int32)
    top = _bytes([["9:2", "5:0"]])
    yield _case(protocol, "of-whole-numbers", "identity_int32", numbers, 2, top)
    flags = np.array([[0, 1, 0]], dtype=np.uint8)
    yield _case(protocol, "of-bytes", "identity_uint8", flags, 1, _bytes([["1:1"]]))
    wide = np.array([[0.5, 0.75]], dtype=np.float64)
    yield _case(protocol, "of-doubles", "identity_fp64", wide, 1, _bytes([["0.750000:1"]]))


def _wrong(protocol: str) -> Iterator[Case]:
    texts = np.array([[b"a", b"b"]], dtype=np.object_)
    yield _case(protocol, "of-texts-is-refused", "identity_bytes", texts, 1, "refused")
    half = np.array([[0.5, 0.75]], dtype=np.float16)
    if protocol == "grpc":
        yield _case(protocol, "of-half-precision", "identity_fp16", half, 1, "either")
    for name, count in (("of-zero", 0), ("of-minus-one", -1), ("that-is-a-text", "2")):
        yield _case(protocol, name, "labelled", _SCORES, count, "either")


def _texts(model: str, *, count: int) -> dict[str, Any]:
    row = []
    for index in _ORDER[:count]:
        text = f"{_SCORES[0, index]:f}:{index}"
        row.append(f"{text}:{LABELS[index]}" if model == "labelled" else text)
    return _bytes([row])


def _bytes(rows: list[list[str]]) -> dict[str, Any]:
    array = np.array([[text.encode() for text in row] for row in rows], dtype=np.object_)
    return output(array, datatype="BYTES")


def _case(
    protocol: str, name: str, model: str, array: np.ndarray, count: Any, expected: Any
) -> Case:
    datatype = {"f4": "FP32", "f8": "FP64", "f2": "FP16", "i4": "INT32", "u1": "UINT8"}.get(
        array.dtype.str[1:], "BYTES"
    )
    if protocol == "http":
        wish = {"name": "OUTPUT0", "parameters": {"classification": count}}
        body = {"inputs": [json_input(array, datatype=datatype)], "outputs": [wish]}
        ask = infer_http(model, body)
    else:
        request = add_raw(message(model), array, datatype=datatype)
        wanted = request.outputs.add(name="OUTPUT0")
        set_parameters(wanted.parameters, {"classification": count})
        ask = infer_grpc(request)
    return Case(
        f"{protocol}/classification/{name}",
        ask,
        _expected(protocol, expected),
        extension=_EXTENSION,
        models=(model,),
    )


def _expected(protocol: str, expected: Any) -> Expected:
    good, bad = ("200", "400") if protocol == "http" else ("OK", "INVALID_ARGUMENT")
    if expected == "refused":
        return Expected((bad,), {"error": ANY})
    if expected == "either":
        return Expected((good, bad))
    return Expected((good,), {"outputs": [ANY if expected is None else expected]})
