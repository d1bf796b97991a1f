"""Health: live, ready, a model's readiness; grpc.health.v1."""

from collections.abc import Iterator

from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2

from conformance.answer import Expected
from conformance.ask import by_method, get, rpc
from conformance.case import Case

_HEALTH = "grpc.health.v1.Health"
_NOT_READY = Expected(("400", "404", "503"))  # Triton, MLServer; an unknown model; KServe
_READY = Expected(("200",))


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _http()
    yield from _grpc()
    yield from _standard()


def _http() -> Iterator[Case]:
    for name, path, expected in (
        ("live", "health/live", _READY),
        ("ready", "health/ready", _READY),
        ("model-ready", "models/simple/ready", _READY),
        ("model-version-ready", "models/simple/versions/1/ready", _READY),
        ("unknown-model-is-not-ready", "models/nope/ready", _NOT_READY),
        ("unknown-version-is-not-ready", "models/simple/versions/7/ready", _NOT_READY),
        ("version-outside-its-policy", "models/versioned/versions/2/ready", _NOT_READY),
        ("version-inside-its-policy", "models/versioned/versions/3/ready", _READY),
        ("version-that-is-no-number", "models/simple/versions/one/ready", _NOT_READY),
        ("model-with-an-odd-name", "models/gr%C3%B6%C3%9Fe%2520/ready", _READY),
    ):
        yield Case(f"http/health/{name}", get(f"/v2/{path}"), expected)
    for method in ("POST", "PUT", "DELETE"):
        name = f"http/health/live-by-{method.lower()}"
        yield Case(name, by_method(method, "/v2/health/live"), Expected(("405",)))


def _grpc() -> Iterator[Case]:
    yield Case("grpc/health/live", rpc("ServerLive"), Expected(("OK",), {"live": True}))
    yield Case("grpc/health/ready", rpc("ServerReady"), Expected(("OK",), {"ready": True}))
    ready = Expected(("OK",), {"ready": True})
    not_ready = Expected(("OK",), lambda body: not body.get("ready"))
    unknown = Expected(("OK", "NOT_FOUND", "INVALID_ARGUMENT"), not_ready.body)
    for name, model, version, expected in (
        ("model-ready", "simple", "", ready),
        ("model-version-ready", "simple", "1", ready),
        ("version-inside-its-policy", "versioned", "3", ready),
        ("version-outside-its-policy", "versioned", "2", not_ready),
        ("unknown-model-is-not-ready", "nope", "", not_ready),
        ("unknown-version-is-not-ready", "simple", "7", not_ready),
        ("model-with-an-odd-name", "größe%20", "", ready),
        ("empty-name-is-not-ready", "", "", unknown),
        ("version-that-is-no-number", "simple", "one", unknown),
    ):
        request = service_pb2.ModelReadyRequest(name=model, version=version)
        yield Case(f"grpc/health/{name}", rpc("ModelReady", request), expected)


def _standard() -> Iterator[Case]:
    for name, service, expected in (
        ("whole-server", "", Expected(("OK",), {"status": "SERVING"})),
        ("inference-service", "inference.GRPCInferenceService", Expected(("OK", "NOT_FOUND"))),
        ("unknown-service", "nope", Expected(("NOT_FOUND",))),
    ):
        ask = rpc(
            "Check",
            health_pb2.HealthCheckRequest(service=service),
            service=_HEALTH,
            response=health_pb2.HealthCheckResponse,
        )
        yield Case(f"grpc/health/standard/{name}", ask, expected)
