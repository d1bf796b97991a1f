"""ModelStreamInfer: many requests and many responses over one call."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, infer_http
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message, output

_ONES = np.ones((1, 16), dtype=np.int32)


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _plain()
    yield from _decoupled()
    yield from _sequences()
    yield from _faults()
    yield from _without_a_stream()


def _simple(**options: Any) -> Any:
    request = message("simple", **options)
    for name in ("INPUT0", "INPUT1"):
        add_raw(request, _ONES, datatype="INT32", name=name)
    return request


def _stream(*requests: Any) -> Ask:
    return lambda server: server.grpc.stream(requests)


def _by_id(*requests: Any) -> Ask:
    """Responses of several requests may overtake each other: sort them by the request's id."""

    def asked(server: Server) -> Answer:
        answer = server.grpc.stream(requests)
        if answer.failed:
            return answer
        return Answer(answer.status, sorted(answer.body, key=lambda each: each.get("id", "")))

    return asked


_SUM = {"outputs": [output(2 * _ONES, datatype="INT32"), ANY]}


def _plain() -> Iterator[Case]:
    for name, ask, expected, model in (
        ("one-request", _stream(_simple(id="a")), [{**_SUM, "id": "a"}], "simple"),
        (
            "three-requests",
            _by_id(*(_simple(id=id) for id in "abc")),
            [{**_SUM, "id": id} for id in "abc"],
            "simple",
        ),
        ("no-request", _stream(), [], "simple"),
        (
            "final-response-of-a-model-that-is-not-decoupled",
            _stream(_simple(triton_enable_empty_final_response=True)),
            ANY,
            "simple",
        ),
    ):
        yield Case(f"grpc/stream/{name}", ask, Expected(("OK",), expected), models=(model,))


def _repeat(count: int, **parameters: Any) -> Any:
    array = np.array([count], dtype=np.int32)
    return add_raw(message("repeat", **parameters), array, datatype="INT32")


def _numbers(count: int) -> list[Any]:
    return [
        {"outputs": [output(np.array([number], np.int32), datatype="INT32")]}
        for number in range(count)
    ]


def _decoupled() -> Iterator[Case]:
    told = {"triton_enable_empty_final_response": True}
    for name, request, expected in (
        ("one-response", _repeat(1), _numbers(1)),
        ("many-responses", _repeat(20), _numbers(20)),
        ("no-response", _repeat(0), []),
        ("final-response", _repeat(2, **told), [*_numbers(2), _FINAL]),
        ("only-a-final-response", _repeat(0, **told), [_FINAL]),
    ):
        yield Case(
            f"grpc/stream/decoupled/{name}",
            _stream(request),
            Expected(("OK",), expected),
            models=("repeat",),
        )


_FINAL = {"parameters": {"triton_final_response": True}}


def _sequences() -> Iterator[Case]:
    def step(value: int, **flags: Any) -> Any:
        request = message("accumulator", id=str(value), sequence_id=77, **flags)
        array = np.array([[value]], dtype=np.int32)
        return add_raw(request, array, datatype="INT32", name="INPUT")

    sums = [
        {"outputs": [{"hex": np.array([total], np.int32).tobytes().hex()}]} for total in (1, 3, 6)
    ]
    yield Case(
        "grpc/stream/sequence",
        _stream(step(1, sequence_start=True), step(2), step(3, sequence_end=True)),
        Expected(("OK",), sums),
        extension="sequence",
        models=("accumulator",),
    )


def _faults() -> Iterator[Case]:
    error = {"error": lambda text: bool(text)}
    wrong = message("simple", id="b")
    add_raw(wrong, _ONES, datatype="INT32")
    for name, ask, expected in (
        ("unknown-model", _stream(message("nope")), [error]),
        ("unknown-version", _stream(_simple(version="7")), [error]),
        ("missing-input", _stream(wrong), [error]),
        ("goes-on-after-an-error", _stream(message("nope"), _simple(id="c")), [error, ANY]),
    ):
        yield Case(f"grpc/stream/{name}", ask, Expected(("OK",), expected), models=("simple",))
    yield Case(
        "grpc/stream/no-protobuf",
        _stream(b"\xff\xff\xff\xff"),
        Expected(("INTERNAL", "INVALID_ARGUMENT", "UNKNOWN", "CANCELLED", "OK")),
    )


def _without_a_stream() -> Iterator[Case]:
    yield Case(
        "grpc/infer/decoupled-model-without-a-stream",
        infer_grpc(_repeat(1)),
        Expected(("UNIMPLEMENTED",), {"error": ANY}),
        models=("repeat",),
    )
    tensor = json_input(np.array([1], np.int32), datatype="INT32")
    yield Case(
        "http/infer/decoupled-model",
        infer_http("repeat", {"inputs": [tensor]}),
        Expected(("501", "400"), {"error": ANY}),
        models=("repeat",),
    )
