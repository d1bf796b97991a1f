"""gRPC as such: reflection, health as a stream, deadlines, sizes, unknown services."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from grpc_health.v1 import health_pb2

from conformance.answer import ANY, Answer, Expected
from conformance.ask import infer_grpc, rpc
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, message, output

_LONG = np.full((1, 2), 400_000, dtype=np.float32)


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _health()
    yield from _reflection()
    yield from _calls()


def _health() -> Iterator[Case]:
    def watch(server: Server) -> Answer:
        return server.grpc.server_stream(
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest(),
            response=health_pb2.HealthCheckResponse,
            until=lambda received: bool(received),
        )

    yield Case(
        "grpc/health/standard/watch",
        watch,
        Expected(("OK", "UNIMPLEMENTED")),
    )


def _reflection() -> Iterator[Case]:
    for version in ("v1", "v1alpha"):
        for name, request in (
            ("list-services", b"\x3a\x00"),
            ("file-containing-the-service", _symbol("inference.GRPCInferenceService")),
            ("unknown-symbol", _symbol("nope.Nope")),
        ):
            yield Case(
                f"grpc/reflection/{version}/{name}",
                _reflect(version, request),
                Expected(("OK", "UNIMPLEMENTED")),
            )


def _symbol(name: str) -> bytes:
    text = name.encode()
    return b"\x22" + bytes([len(text)]) + text


def _reflect(version: str, request: bytes) -> Ask:
    def asked(server: Server) -> Answer:
        return server.grpc.raw_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", [request]
        )

    return asked


def _calls() -> Iterator[Case]:
    slow = add_raw(message("slow"), _LONG, datatype="FP32")
    yield Case(
        "grpc/call/deadline-that-passes",
        infer_grpc(slow, timeout_s=0.02),
        Expected(("DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"), {"error": ANY}),
        models=("slow",),
    )
    megabytes = np.zeros((1, 1_500_000), dtype=np.float32)
    large = add_raw(message("identity_fp32"), megabytes, datatype="FP32")
    yield Case(
        "grpc/call/six-megabytes",
        _only(infer_grpc(large)),
        Expected(("OK",), {"bytes": 6_000_000}),
        models=("identity_fp32",),
    )
    row = np.array([[1.0]], dtype=np.float32)
    good = add_raw(message("identity_fp32"), row, datatype="FP32")
    for name, metadata in (
        ("metadata", (("x-colour", "blue"),)),
        ("binary-metadata", (("x-bytes-bin", b"\x00\xff"),)),
        ("much-metadata", (("x-long", "y" * 4000),)),
    ):
        yield Case(
            f"grpc/call/{name}",
            infer_grpc(good, metadata=metadata),
            Expected(("OK",), {"outputs": [output(row, datatype="FP32")]}),
            models=("identity_fp32",),
        )
    for name, service, method in (
        ("unknown-service", "nope.Nope", "Nope"),
        ("unknown-method", "inference.GRPCInferenceService", "Nope"),
        ("method-in-lower-case", "inference.GRPCInferenceService", "serverlive"),
    ):
        yield Case(f"grpc/call/{name}", rpc(method, service=service), Expected(("UNIMPLEMENTED",)))


def _only(ask: Ask) -> Ask:
    """How many bytes the first output has, instead of six megabytes."""

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        outputs: list[dict[str, Any]] = answer.body["outputs"]
        return Answer(answer.status, {"bytes": len(outputs[0]["hex"]) // 2})

    return asked
