"""A small server of the protocol, over gRPC and HTTP, and a clock that runs without waiting."""

import asyncio
import json
import selectors
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from aiohttp import web
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from ridgeline import hardware
from ridgeline.cost import ModelCost
from ridgeline.hardware import Hardware

COST = ModelCost(
    multiply_adds_per_sample=416_520,
    parameters=61_706,
    weight_bytes=246_824,
    input_bytes_per_sample=16,
    output_bytes_per_sample=16,
)
MAX_BATCH_SIZE = 8


@dataclass
class Behaviour:
    """Switches of the fake server. `answers` counts inferences; after `fail_after` it refuses."""

    fail_after: int | None = None
    tells_config: bool = True
    tells_cost: bool = True
    malformed_metadata: bool = False
    malformed_inference: bool = False
    shape: tuple[int, ...] = (-1, 4)
    wrong_after: int | None = None
    answers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def refuses(self) -> bool:
        """Count one inference; whether it is to be refused."""
        with self.lock:
            self.answers += 1
            return self.fail_after is not None and self.answers > self.fail_after

    @property
    def wrong(self) -> bool:
        """Whether this inference is to be answered with other numbers."""
        return self.wrong_after is not None and self.answers > self.wrong_after

    def metadata(self) -> service_pb2.ModelMetadataResponse:
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        return service_pb2.ModelMetadataResponse(
            name="identity",
            versions=["2", "10"],
            inputs=[tensor(name="x", datatype="FP32", shape=self.shape)],
            outputs=[tensor(name="y", datatype="FP32", shape=self.shape)],
        )

    def config(self) -> model_config_pb2.ModelConfig:
        config = model_config_pb2.ModelConfig(name="identity", max_batch_size=MAX_BATCH_SIZE)
        if self.tells_cost:
            for name, text in COST.to_parameters().items():
                config.parameters[name].string_value = text
        return config


@dataclass(frozen=True)
class FakeServer:
    """Where the fake server listens, and how it behaves."""

    protocol: str
    url: str
    behaviour: Behaviour

    def target(self, *, model: str = "identity") -> list[str]:
        """The flags that name it."""
        return ["--url", self.url, "--protocol", self.protocol, "--model", model]


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def ServerMetadata(self, _request, _context):  # noqa: N802 - the protocol's names
        return service_pb2.ServerMetadataResponse(name="fake", version="1.5")

    def ModelMetadata(self, request, context):  # noqa: N802
        if request.name != "identity":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.name}")
        return self._behaviour.metadata()

    def ModelConfig(self, _request, context):  # noqa: N802
        if not self._behaviour.tells_config:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no configurations here")
        return service_pb2.ModelConfigResponse(config=self._behaviour.config())

    def ModelInfer(self, request, context):  # noqa: N802
        if self._behaviour.refuses():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the queue is full")
        response = service_pb2.ModelInferResponse(model_name="identity")
        if not self._behaviour.malformed_inference:
            response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
            raw = request.raw_input_contents[0]
            response.raw_output_contents.append(_plus_one(raw) if self._behaviour.wrong else raw)
        return response


def _plus_one(raw: bytes) -> bytes:
    return (np.frombuffer(raw, np.float32) + 1).tobytes()


def _http_app(behaviour: Behaviour) -> web.Application:
    async def server(_request: web.Request) -> web.Response:
        return web.json_response({"name": "fake", "version": "1.5", "extensions": []})

    async def metadata(request: web.Request) -> web.Response:
        if request.match_info["model"] != "identity":
            return web.json_response({"error": "unknown model"}, status=404)
        if behaviour.malformed_metadata:
            return web.json_response({"inputs": 3})
        return web.json_response(json_format.MessageToDict(behaviour.metadata()))

    async def config(_request: web.Request) -> web.Response:
        if not behaviour.tells_config:
            return web.json_response({"error": "no configurations here"}, status=404)
        table = json_format.MessageToDict(behaviour.config(), preserving_proto_field_name=True)
        return web.json_response(table)

    async def infer(request: web.Request) -> web.Response:
        body = await request.read()
        if behaviour.refuses():
            return web.json_response({"error": "the queue is full"}, status=503)
        if behaviour.malformed_inference:
            return web.Response(body=b"\x00\x01")
        length = int(request.headers["Inference-Header-Content-Length"])
        tensor, raw = json.loads(body[:length])["inputs"][0], body[length:]
        raw = _plus_one(raw) if behaviour.wrong else raw
        output = {**tensor, "name": "y", "parameters": {"binary_data_size": len(raw)}}
        header = json.dumps({"model_name": "identity", "outputs": [output]}).encode()
        return web.Response(
            body=header + raw, headers={"Inference-Header-Content-Length": str(len(header))}
        )

    app = web.Application()
    app.router.add_get("/v2", server)
    app.router.add_get("/v2/models/{model}", metadata)
    app.router.add_get("/v2/models/{model}/config", config)
    app.router.add_post("/v2/models/{model}/infer", infer)
    return app


@pytest.fixture
def grpc_server() -> Iterator[FakeServer]:
    behaviour = Behaviour()
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(behaviour), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield FakeServer("grpc", f"127.0.0.1:{port}", behaviour)
    server.stop(grace=None).wait()


@pytest.fixture
def http_server() -> Iterator[FakeServer]:
    behaviour = Behaviour()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(_http_app(behaviour))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield FakeServer("http", f"127.0.0.1:{port}", behaviour)
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(params=["grpc", "http"])
def server(request: pytest.FixtureRequest) -> FakeServer:
    """The fake server, once over each protocol."""
    fake: FakeServer = request.getfixturevalue(f"{request.param}_server")
    return fake


@pytest.fixture
def machine() -> Hardware:
    """Round figures, so that floors can be worked out by hand."""
    return Hardware(
        fingerprint=hardware.current_fingerprint(),
        peak_flops_per_s=1e9,
        memory_bandwidth_bytes_per_s=1e9,
        bandwidth_by_working_set=((2**20, 4e9), (2**24, 2e9)),
        measured_at="2026-01-02T03:04:05+00:00",
    )


@pytest.fixture(autouse=True)
def _cached_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Hardware) -> None:
    """`machine` stands in the cache, so that no test measures the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = hardware.cache_path(machine.fingerprint)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(machine)))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """20 samples whose largest element is in the place of their label, but for the first three."""
    labels = np.arange(20) % 4
    x = np.eye(4, dtype=np.float32)[labels]
    labels[:3] = (labels[:3] + 1) % 4
    path = tmp_path / "samples.npz"
    np.savez(path, x=x, label=labels)
    return path


class _VirtualSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock on by as long as it would have waited."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is left to happen: this would wait for ever"
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only by sleeping, and sleeping takes no time."""

    def __init__(self) -> None:
        self.selector = _VirtualSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s

    def time_ns(self) -> int:
        return round(1e9 * self.selector.now_s)

    def pass_s(self, seconds: float) -> None:
        """Let time pass while the loop is blocked."""
        self.selector.now_s += seconds


@pytest.fixture
def virtual_loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()
