"""The binary tensor data extension: every datatype, every switch, raw requests."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Expected
from conformance.ask import infer_http
from conformance.case import Case
from conformance.cases.http_requests import BAD, ONES, ROW, answered, simple_input
from conformance.samples import binary_input, json_input, output, raw, sample
from ridgeline.datatypes import DATATYPES

_BINARY = "binary_tensor_data"


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _binary_datatypes()
    yield from _nan()
    yield from _binary_switches()
    yield from _mixtures()
    yield from _raw_requests()


def _binary_datatypes() -> Iterator[Case]:
    for datatype in DATATYPES:
        values, name = sample(datatype), datatype.lower()
        for kind, shape in (("identity", (1, 3)), ("plain", (3, 1))):
            array = values.reshape(shape)
            body = {
                "inputs": [binary_input(array, datatype=datatype)],
                "parameters": {"binary_data_output": True},
            }
            yield Case(
                f"http/infer/binary/{kind}/{name}",
                infer_http(f"{kind}_{name}", body, binary=raw(array)),
                answered(output(array, datatype=datatype) | {"form": "binary"}),
                extension=_BINARY,
                models=(f"{kind}_{name}",),
            )


def _nan() -> Iterator[Case]:
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0]], dtype=np.float32)
    inputs = [binary_input(odd, datatype="FP32")]
    for name, binary, expected in (
        ("nan-infinity-and-minus-zero", True, answered(output(odd, datatype="FP32"))),
        ("nan-asked-for-as-json", False, Expected(("200", "400"))),
    ):
        body = {"inputs": inputs, "parameters": {"binary_data_output": binary}}
        yield _case(name, "identity_fp32", body, expected, binary=raw(odd))


def _case(name: str, model: str, body: Any, expected: Expected, **options: Any) -> Case:
    return Case(
        f"http/infer/binary/{name}",
        infer_http(model, body, **options),
        expected,
        extension=_BINARY,
        models=(model,),
    )


_YES, _NO = {"binary_data": True}, {"binary_data": False}
_ALL, _NONE = {"binary_data_output": True}, {"binary_data_output": False}
# name, parameters of the request, what stands beside the output's name, the form that is right
_SWITCHES: tuple[tuple[str, Any, Any, str], ...] = (
    ("json-by-default", None, None, "json"),
    ("request-asks-for-binary", _ALL, None, "binary"),
    ("request-asks-for-json", _NONE, None, "json"),
    ("output-asks-for-binary", None, {"parameters": _YES}, "binary"),
    ("output-asks-for-json", None, {"parameters": _NO}, "json"),
    ("output-overrides-with-json", _ALL, {"parameters": _NO}, "json"),
    ("output-overrides-with-binary", _NONE, {"parameters": _YES}, "binary"),
    ("named-output-follows-the-request", _ALL, {}, "binary"),
    ("output-with-empty-parameters-follows-the-request", _ALL, {"parameters": {}}, "binary"),
)


def _binary_switches() -> Iterator[Case]:
    for name, parameters, beside, form in _SWITCHES:
        body: dict[str, Any] = {"inputs": [binary_input(ROW, datatype="FP32")]}
        if parameters is not None:
            body["parameters"] = parameters
        if beside is not None:
            body["outputs"] = [{"name": "OUTPUT0", **beside}]
        expected = answered(output(ROW, datatype="FP32") | {"form": form})
        yield _case(name, "identity_fp32", body, expected, binary=raw(ROW))


def _mixtures() -> Iterator[Case]:
    inputs = [simple_input("INPUT0"), binary_input(ONES, datatype="INT32", name="INPUT1")]
    yield _case(
        "one-input-json-one-binary",
        "simple",
        {"inputs": inputs},
        answered(output(ONES + ONES, datatype="INT32"), ANY),
        binary=raw(ONES),
    )
    yield _case(
        "json-input-binary-output",
        "identity_fp32",
        {"inputs": [json_input(ROW, datatype="FP32")], "parameters": _ALL},
        answered(output(ROW, datatype="FP32") | {"form": "binary"}),
    )
    outputs = [
        {"name": "OUTPUT0", "parameters": _YES},
        {"name": "OUTPUT1", "parameters": _NO},
    ]
    yield _case(
        "one-output-json-one-binary",
        "simple",
        {"inputs": [simple_input("INPUT0"), simple_input("INPUT1")], "outputs": outputs},
        answered({"form": "binary"}, {"form": "json"}),
    )


def _raw_requests() -> Iterator[Case]:
    def case(name: str, model: str, data: bytes, expected: Expected) -> Case:
        return Case(
            f"http/infer/raw/{name}",
            infer_http(model, b"", binary=data, header_length="0"),
            expected,
            extension=_BINARY,
            models=(model,),
        )

    six = np.arange(6, dtype=np.float32)
    binary = {"form": "binary"}
    one_row = output(six, datatype="FP32", shape=(1, 6)) | binary
    fixed = output(six, datatype="FP32", shape=(1, 2, 3)) | binary
    yield case("one-free-axis", "identity_fp32", raw(six), answered(one_row))
    yield case("no-free-axis", "fixed", raw(six), answered(fixed))
    yield case("size-that-does-not-fit", "fixed", raw(six)[:-4], BAD)
    yield case("part-of-an-element", "identity_fp32", raw(six)[:-1], BAD)
    yield case("several-free-axes", "plain_fp32", raw(six), BAD)
    yield case("several-inputs", "simple", raw(ONES) * 2, BAD)
    yield case("nothing", "identity_fp32", b"", Expected(("200", "400")))
    told = Expected(("200",), {"outputs": [ANY]})
    yield case("text", "tell", b"hello", told)
    yield case("text-with-a-free-axis", "identity_bytes", b"hello", Expected(("200", "400")))
