"""Conversations of the four official clients with the gateway of a test's module."""

import asyncio
import gc
import inspect
import json
import ssl
import warnings

import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from tests.e2e.official_clients import PROTOCOLS

MACHINE = {
    "fingerprint": {
        **{"cpu": "a processor", "cores": 2, "memory_bytes": 2**34, "platform": "here"},
        **{"numpy": "2", "blas": "some"},
    },
    "peak_flops_per_s": 1e9,
    "memory_bandwidth_bytes_per_s": 1e9,
    "bandwidth_by_working_set": [[2**20, 1e9]],
    "measured_at": "2026-01-02T03:04:05+00:00",
    "gemm": [],
}
CLIENTS = {**PROTOCOLS, "grpc.aio": tritonclient.grpc.aio, "http.aio": tritonclient.http.aio}


class Client:
    """One official client: `call` awaits what has to be awaited; `tensors` is their module."""

    def __init__(self, name, gateway, authority):
        self.name = name
        self.over_grpc = name.startswith("grpc")
        self.tensors = tritonclient.grpc if self.over_grpc else tritonclient.http
        url = gateway.grpc_url if self.over_grpc else gateway.http_url.removeprefix("http://")
        options = {} if authority is None else {"ssl": True, **_trusting(name, authority)}
        self.raw = CLIENTS[name].InferenceServerClient(url, **options)

    async def call(self, method, *arguments, **options):
        value = getattr(self.raw, method)(*arguments, **options)
        return await value if inspect.isawaitable(value) else value

    async def infer(self, model, *, inputs, **options):
        tensors = [self.input(name, array) for name, array in inputs.items()]
        return await self.call("infer", model, tensors, **options)

    def input(self, name, array):
        kinds = {"f": "FP32", "i": "INT32", "O": "BYTES"}
        tensor = self.tensors.InferInput(name, list(array.shape), kinds[array.dtype.kind])
        return tensor.set_data_from_numpy(array)

    def compressed(self, coding):
        """The options of `infer` that ask for it."""
        if self.over_grpc:
            return {"compression_algorithm": coding}
        return {f"{way}_compression_algorithm": coding for way in ("request", "response")}


def _trusting(name, authority):
    if name.startswith("grpc"):
        return {"root_certificates": str(authority)}
    if name == "http":
        return {"ssl_context_factory": lambda: ssl.create_default_context(cafile=authority)}
    return {"ssl_context": ssl.create_default_context(cafile=authority)}


@pytest.fixture(scope="module")
def authority():
    """The certificate that clients trust; without one they speak in the clear."""
    return None


@pytest.fixture(params=CLIENTS)
def talk(request, gateway, authority):
    """Runs a coroutine function with a client of the module's `gateway`."""

    def run(conversation):
        async def talked():
            client = Client(request.param, gateway, authority)
            try:
                return await conversation(client)
            finally:
                await client.call("close")

        with warnings.catch_warnings():
            # The client of aiohttp leaves the answer that it turns into an error to the collector.
            warnings.simplefilter("ignore", ResourceWarning)
            result = asyncio.run(talked())
            gc.collect()
        return result

    return run


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def machine(tmp_path):
    """A file of `ridgeline hardware --json`, so that a load test measures no hardware."""
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(MACHINE))
    return path
