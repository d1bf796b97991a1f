"""An ensemble of three steps, what asks it, and what stands before its steps."""

import asyncio
import dataclasses

import numpy as np

from serving.registry import Registry
from serving.request import InferRequest, InferResponse

ENSEMBLE = """
platform: "ensemble"
max_batch_size: %d
input { name: "A" data_type: TYPE_FP32 dims: %s }
input { name: "B" data_type: TYPE_FP32 dims: %s }
output { name: "TWICE_A" data_type: TYPE_FP32 dims: %s }
output { name: "TWICE_B" data_type: TYPE_FP32 dims: %s }
output { name: "SUM" data_type: TYPE_FP32 dims: %s }
ensemble_scheduling {
  step {
    model_name: "copy" model_version: -1
    input_map { key: "x" value: "twice a" } output_map { key: "y" value: "TWICE_A" }
  }
  step {
    model_name: "pair" model_version: -1
    input_map { key: "a" value: "SUM" } input_map { key: "b" value: "difference" }
    output_map { key: "sum" value: "twice a" } output_map { key: "difference" value: "TWICE_B" }
  }
  step {
    model_name: "pair" model_version: -1
    input_map { key: "a" value: "A" } input_map { key: "b" value: "B" }
    output_map { key: "sum" value: "SUM" } output_map { key: "difference" value: "difference" }
  }
}
"""
A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.ones((2, 3), np.float32)


def plan(*, batch: int = 4, dims: str = "3") -> str:
    return ENSEMBLE % (batch, *[dims] * 5)


def request(a=A, b=B, **more) -> InferRequest:
    return InferRequest("e", {"A": a, "B": b}, **more)


async def ask(registry, *arrays, **more):
    return await registry.find("e").scheduler.infer(request(*arrays, **more))


class Recorder:
    """Stands before the scheduler of a step: remembers requests, and may hold or refuse them."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._served = next(served for served in registry if served.name == name)
        self._scheduler = self._served.ready.scheduler
        self.requests: list[InferRequest] = []
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()
        self.cancelled = False
        self.error: Exception | None = None
        self.go_on.set()
        self._served.ready = dataclasses.replace(self._served.ready, scheduler=self)

    async def infer(self, request: InferRequest) -> InferResponse:
        self.requests.append(request)
        self.entered.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return await self._scheduler.infer(request)

    async def close(self, *, drain_seconds: float) -> None:
        self.go_on.set()
        await self._scheduler.close(drain_seconds=drain_seconds)
