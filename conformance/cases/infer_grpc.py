"""Inference over gRPC: typed and raw contents, and every way to get them wrong."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Expected
from conformance.ask import infer_grpc, rpc
from conformance.case import Case
from conformance.samples import FIELDS, add_raw, add_typed, message, output, raw, sample
from ridgeline.datatypes import DATATYPES

_BAD = Expected(("INVALID_ARGUMENT",), {"error": ANY})
_ROW = np.array([[1.5, -2.0]], dtype=np.float32)
_ONES = np.ones((1, 16), dtype=np.int32)


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _datatypes()
    yield from _forms()
    yield from _raw_faults()
    yield from _typed_faults()
    yield from _shapes()
    yield from _names()
    yield from _messages()


def _ok(*outputs: Any, **fields: Any) -> Expected:
    return Expected(("OK",), {"outputs": list(outputs), **fields})


def _datatypes() -> Iterator[Case]:
    for datatype in DATATYPES:
        name = datatype.lower()
        for kind, shape in (("identity", (1, 3)), ("plain", (3, 1))):
            array = sample(datatype).reshape(shape)
            model = f"{kind}_{name}"
            answered = _ok(output(array, datatype=datatype), model_name=model, model_version="1")
            request = add_raw(message(model), array, datatype=datatype)
            yield Case(
                f"grpc/infer/raw/{kind}/{name}", infer_grpc(request), answered, models=(model,)
            )
            if datatype in FIELDS:
                request = add_typed(message(model), array, datatype=datatype)
                yield Case(
                    f"grpc/infer/typed/{kind}/{name}",
                    infer_grpc(request),
                    answered,
                    models=(model,),
                )
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0]], dtype=np.float32)
    for way, add in (("raw", add_raw), ("typed", add_typed)):
        request = add(message("identity_fp32"), odd, datatype="FP32")
        yield Case(
            f"grpc/infer/{way}/nan-infinity-and-minus-zero",
            infer_grpc(request),
            _ok(output(odd, datatype="FP32")),
            models=("identity_fp32",),
        )


def _simple(*names: str, rows: int = 1, **options: Any) -> Any:
    request = message("simple", **options)
    for name in names or ("INPUT0", "INPUT1"):
        add_raw(request, np.ones((rows, 16), np.int32), datatype="INT32", name=name)
    return request


def _forms() -> Iterator[Case]:
    added = output(_ONES + _ONES, datatype="INT32")
    taken = output(_ONES - _ONES, datatype="INT32", name="OUTPUT1")
    one, other, twice = _simple(), _simple(), _simple()
    one.outputs.add(name="OUTPUT1")
    for name in ("OUTPUT1", "OUTPUT0"):
        other.outputs.add(name=name)
        twice.outputs.add(name="OUTPUT0")
    for name, request, expected in (
        ("all-outputs-by-default", _simple(), _ok(added, taken, model_version="1")),
        ("one-output", one, _ok(taken)),
        ("outputs-in-other-order", other, _ok(ANY, ANY)),
        ("output-asked-for-twice", twice, Expected(("OK", "INVALID_ARGUMENT"))),
        ("inputs-in-other-order", _simple("INPUT1", "INPUT0"), _ok(added, taken)),
        ("id-comes-back", _simple(id="a1 ß"), _ok(added, taken, id="a1 ß")),
        ("parameters", _simple(a="b", c=1, d=True, e=1.5), _ok(added, taken)),
        ("batch-of-eight", _simple(rows=8), _ok(ANY, ANY)),
        ("with-version", _simple(version="1"), _ok(added, taken)),
    ):
        yield Case(f"grpc/infer/{name}", infer_grpc(request), expected, models=("simple",))
    for version, number in (("1", 1), ("3", 3), ("", 3)):
        request = add_raw(message("versioned", version=version), _ROW, datatype="FP32")
        yield Case(
            f"grpc/infer/version-{version or 'by-default'}",
            infer_grpc(request),
            _ok(output(_ROW + number, datatype="FP32"), model_version=version or "3"),
            models=("versioned",),
        )
    for compression in (1, 2):
        yield Case(
            f"grpc/infer/compressed-with-{('deflate', 'gzip')[compression - 1]}",
            infer_grpc(_simple(), compression=compression),
            _ok(added, taken),
            models=("simple",),
        )


def _fault(name: str, request: Any, *, model: str) -> Case:
    return Case(f"grpc/infer/{name}", infer_grpc(request), _BAD, models=(model,))


def _raw_faults() -> Iterator[Case]:
    model = "identity_fp32"
    good = raw(_ROW)
    for name, contents in (
        ("too-few-bytes", [good[:-1]]),
        ("too-many-bytes", [good + b"\0"]),
        ("no-bytes", [b""]),
        ("more-entries-than-inputs", [good, good]),
    ):
        request = message(model)
        request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.extend(contents)
        yield _fault(f"raw/{name}", request, model=model)
    fewer = _simple()
    del fewer.raw_input_contents[1:]
    yield _fault("raw/fewer-entries-than-inputs", fewer, model="simple")
    both = add_typed(message(model), _ROW, datatype="FP32")
    both.raw_input_contents.append(good)
    yield _fault("raw/contents-and-raw-contents", both, model=model)
    neither = message(model)
    neither.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 2])
    yield _fault("raw/neither-contents-nor-raw-contents", neither, model=model)
    for name, data in (
        ("bytes-cut-in-a-length", b"\x01\0"),
        ("bytes-cut-in-an-element", b"\x05\0\0\0ab"),
        ("bytes-of-too-few-elements", b""),
        ("bytes-of-too-many-elements", b"\0\0\0\0" * 2),
        ("bytes-of-a-huge-length", b"\xff\xff\xff\xffab"),
    ):
        request = message("identity_bytes")
        request.inputs.add(name="INPUT0", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(data)
        yield _fault(f"raw/{name}", request, model="identity_bytes")


def _typed_faults() -> Iterator[Case]:
    for datatype, field, values in (
        ("FP32", "fp64_contents", [1.5, 2.5]),
        ("FP64", "fp32_contents", [1.5, 2.5]),
        ("INT32", "int64_contents", [1, 2]),
        ("INT64", "int_contents", [1, 2]),
        ("UINT8", "int_contents", [1, 2]),
        ("BOOL", "int_contents", [1, 0]),
        ("BYTES", "int_contents", [1, 0]),
        ("FP16", "fp32_contents", [1.5, 2.5]),
        ("BF16", "fp32_contents", [1.5, 2.5]),
    ):
        request = message(f"identity_{datatype.lower()}")
        tensor = request.inputs.add(name="INPUT0", datatype=datatype, shape=[1, 2])
        getattr(tensor.contents, field).extend(values)
        name = f"typed/{datatype.lower()}-in-{field.replace('_', '-')}"
        yield _fault(name, request, model=f"identity_{datatype.lower()}")
    for name, count in (("too-few-elements", 1), ("too-many-elements", 3)):
        request = message("identity_fp32")
        tensor = request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 2])
        tensor.contents.fp32_contents.extend([1.5] * count)
        yield _fault(f"typed/{name}", request, model="identity_fp32")
    for datatype, field, value in (
        ("INT8", "int_contents", 128),
        ("INT16", "int_contents", 2**15),
        ("UINT8", "uint_contents", 256),
        ("UINT16", "uint_contents", 2**16),
    ):
        request = message(f"identity_{datatype.lower()}")
        tensor = request.inputs.add(name="INPUT0", datatype=datatype, shape=[1, 1])
        getattr(tensor.contents, field).append(value)
        name = f"typed/element-that-does-not-fit/{datatype.lower()}-{value}"
        yield _fault(name, request, model=f"identity_{datatype.lower()}")
    request = add_typed(message("identity_fp32"), _ROW, datatype="FP32")
    request.inputs[0].contents.int_contents.append(1)
    yield _fault("typed/two-fields-at-once", request, model="identity_fp32")


def _shapes() -> Iterator[Case]:
    for name, model, shape, good in (
        ("free-axis-of-one", "identity_fp32", (1, 1), True),
        ("free-axis-of-zero", "identity_fp32", (2, 0), True),
        ("every-axis-free", "cube", (1, 2, 3, 4), True),
        ("every-axis-zero", "cube", (0, 0, 0, 0), True),
        ("largest-batch", "fixed", (4, 2, 3), True),
        ("batch-beyond-the-most", "fixed", (5, 2, 3), False),
        ("batch-of-zero", "fixed", (0, 2, 3), False),
        ("other-size", "fixed", (1, 2, 4), False),
        ("swapped-axes", "fixed", (1, 3, 2), False),
        ("too-few-axes", "fixed", (2, 3), False),
        ("too-many-axes", "fixed", (1, 1, 2, 3), False),
        ("no-axes", "fixed", (), False),
        ("reshaped-to-a-vector", "reshaped", (3, 1), True),
        ("reshaped-given-as-a-vector", "reshaped", (3,), False),
    ):
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        request = add_raw(message(model), array, datatype="FP32")
        expected = _ok(output(array, datatype="FP32")) if good else _BAD
        yield Case(f"grpc/infer/shape/{name}", infer_grpc(request), expected, models=(model,))
    for name, sizes in (
        ("negative-size", (-1, 2)),
        ("two-negative-sizes", (-1, -2)),
        ("product-that-overflows", (2**33, 2**33)),
        ("a-size-of-two-to-the-62", (1, 2**62)),
        ("a-thousand-axes", (1,) * 1000),
    ):
        request = add_raw(message("identity_fp32"), _ROW, datatype="FP32", shape=sizes)
        yield _fault(f"shape/{name}", request, model="identity_fp32")


def _names() -> Iterator[Case]:
    good = add_raw(message("identity_fp32"), _ROW, datatype="FP32")
    for name, change in (
        ("unknown-input", {"name": "INPUT7"}),
        ("input-without-a-name", {"name": ""}),
        ("unknown-datatype", {"datatype": "FP8"}),
        ("no-datatype", {"datatype": ""}),
        ("lower-case-datatype", {"datatype": "fp32"}),
        ("other-datatype", {"datatype": "INT32"}),
    ):
        request = type(good).FromString(good.SerializeToString())
        for key, value in change.items():
            setattr(request.inputs[0], key, value)
        yield _fault(name, request, model="identity_fp32")
    yield _fault("no-inputs", message("identity_fp32"), model="identity_fp32")
    yield _fault("missing-input", _simple("INPUT0"), model="simple")
    yield _fault("input-twice", _simple("INPUT0", "INPUT0"), model="simple")
    yield _fault("additional-input", _simple("INPUT0", "INPUT1", "INPUT7"), model="simple")
    yield _fault("batches-that-differ", _different_batches(), model="simple")
    unknown = _simple()
    unknown.outputs.add(name="OUTPUT7")
    yield _fault("unknown-output", unknown, model="simple")
    nameless = _simple()
    nameless.outputs.add()
    yield _fault("output-without-a-name", nameless, model="simple")
    for name, model, version in (
        ("unknown-model", "nope", ""),
        ("unknown-version", "identity_fp32", "7"),
        ("version-outside-its-policy", "versioned", "2"),
        ("version-that-is-no-number", "identity_fp32", "one"),
        ("no-model", "", ""),
    ):
        request = add_raw(message(model, version=version), _ROW, datatype="FP32")
        expected = Expected(("NOT_FOUND", "INVALID_ARGUMENT"), {"error": ANY})
        yield Case(f"grpc/infer/{name}", infer_grpc(request), expected)
    failing = add_raw(message("lookup"), np.array([[3]], dtype=np.int64), datatype="INT64")
    yield Case(
        "grpc/infer/model-that-fails-while-it-runs",
        infer_grpc(failing),
        Expected(("INTERNAL",), {"error": ANY}),
        models=("lookup",),
    )


def _different_batches() -> Any:
    request = message("simple")
    for name, rows in (("INPUT0", 1), ("INPUT1", 2)):
        add_raw(request, np.ones((rows, 16), np.int32), datatype="INT32", name=name)
    return request


def _messages() -> Iterator[Case]:
    malformed = Expected(("INTERNAL", "INVALID_ARGUMENT", "UNKNOWN"), {"error": ANY})
    for name, data in (
        ("no-protobuf", b"\xff\xff\xff\xff"),
        ("cut-off", _simple().SerializeToString()[:-3]),
        ("a-name-that-is-no-text", b"\x0a\x02\xff\xfe"),
        ("a-length-beyond-the-end", b"\x0a\xff\xff\xff\xff\x07abc"),
    ):
        yield Case(f"grpc/infer/message/{name}", infer_grpc(data), malformed)
    yield Case(
        "grpc/infer/message/empty",
        infer_grpc(b""),
        Expected(("INVALID_ARGUMENT", "NOT_FOUND"), {"error": ANY}),
    )
    newer = _simple().SerializeToString() + b"\xfa\x3e\x03abc"  # field 1007, which nobody knows
    yield Case(
        "grpc/infer/message/with-an-unknown-field",
        infer_grpc(newer),
        _ok(ANY, ANY),
        models=("simple",),
    )
    for service in ("inference.GRPCInferenceService", "nope.Service"):
        yield Case(
            f"grpc/unknown-method/{service.lower()}",
            rpc("Nope", service=service),
            Expected(("UNIMPLEMENTED",)),
        )
