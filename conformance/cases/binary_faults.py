"""The binary tensor data extension, and every way to get it wrong."""

from collections.abc import Iterator
from typing import Any

from conformance.ask import infer_http
from conformance.case import Case
from conformance.cases.http_requests import BAD, ROW, dumped
from conformance.samples import binary_input, raw

_BINARY = "binary_tensor_data"


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _sizes()
    yield from _header_lengths()
    yield from _rest()
    yield from _texts()


_GIVEN, _DATA = binary_input(ROW, datatype="FP32"), raw(ROW)
_GOOD = {"inputs": [_GIVEN]}


def _fault(name: str, body: Any, binary: bytes | None = _DATA, **options: Any) -> Case:
    return Case(
        f"http/infer/binary/{name}",
        infer_http("identity_fp32", body, binary=binary, **options),
        BAD,
        extension=_BINARY,
        models=("identity_fp32",),
    )


def _sizes() -> Iterator[Case]:
    for name, size in (
        ("size-too-small", 4),
        ("size-too-large", 12),
        ("size-negative", -1),
        ("size-huge", 2**62),
        ("size-beyond-64-bits", 2**65),
        ("size-a-text", "8"),
        ("size-a-fraction", 8.5),
        ("size-a-boolean", True),
        ("size-null", None),
    ):
        yield _fault(name, {"inputs": [{**_GIVEN, "parameters": {"binary_data_size": size}}]})


def _header_lengths() -> Iterator[Case]:
    for name, length in (
        ("header-length-too-large", "100000"),
        ("header-length-negative", "-1"),
        ("header-length-a-text", "many"),
        ("header-length-empty", ""),
        ("header-length-a-fraction", "7.5"),
        ("header-length-beyond-64-bits", str(2**65)),
        ("header-length-cuts-the-json", "10"),
        ("header-length-one-too-many", str(len(dumped(_GOOD)) + 1)),
    ):
        yield _fault(name, _GOOD, header_length=length)


def _rest() -> Iterator[Case]:
    yield _fault("data-missing", _GOOD, b"")
    yield _fault("data-cut-off", _GOOD, _DATA[:-1])
    yield _fault("data-left-over", _GOOD, _DATA + b"\0")
    yield _fault("header-length-missing", dumped(_GOOD) + _DATA, None)
    yield _fault("size-and-data", {"inputs": [{**_GIVEN, "data": [1.5, -2.0]}]})
    as_text = {"binary_data_output": "yes"}
    yield _fault("binary-data-output-a-text", {**_GOOD, "parameters": as_text})
    output = {"name": "OUTPUT0", "parameters": {"binary_data": "yes"}}
    yield _fault("binary-data-a-text", {**_GOOD, "outputs": [output]})


def _texts() -> Iterator[Case]:
    for name, data in (
        ("bytes-cut-in-a-length", b"\x01\0"),
        ("bytes-cut-in-an-element", b"\x05\0\0\0ab"),
        ("bytes-of-too-few-elements", b""),
        ("bytes-of-too-many-elements", b"\0\0\0\0" * 2),
        ("bytes-of-a-huge-length", b"\xff\xff\xff\xffab"),
    ):
        tensor = {
            "name": "INPUT0",
            "datatype": "BYTES",
            "shape": [1, 1],
            "parameters": {"binary_data_size": len(data)},
        }
        yield Case(
            f"http/infer/binary/{name}",
            infer_http("identity_bytes", {"inputs": [tensor]}, binary=data),
            BAD,
            extension=_BINARY,
            models=("identity_bytes",),
        )
