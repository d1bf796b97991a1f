"""Models of two kinds, and a registry that knows them: what streaming calls ask for."""

import asyncio
from types import SimpleNamespace

import numpy as np
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, NotFound, Overloaded
from serving.request import InferResponse
from serving.settings import ServeSettings


class Doubling:
    """y = 2 x; a request waits for the gate named by its id, where there is one."""

    decoupled = False

    def __init__(self):
        self.gates, self.arrived, self.left = {}, [], []
        self.arrival, self.closed = asyncio.Event(), asyncio.Event()

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    async def infer(self, request):
        x = request.inputs["x"]
        self.arrived.append(request.id)
        self.arrival.set()
        if x.flat[0] < 0:
            raise InvalidInput("x is negative")
        try:
            if request.id in self.gates:
                await self.gates[request.id].wait()
        except asyncio.CancelledError:
            self.left.append(request.id)
            raise
        return _response(request, 2 * x)

    async def until_arrived(self, count):
        while len(self.arrived) < count:
            self.arrival.clear()
            await self.arrival.wait()


class Counting(Doubling):
    """y = 0, 1, ... as many as x says; the last one is final where the id says so."""

    decoupled = True

    async def stream(self, request):
        try:
            async for answer in self._answers(request):
                yield answer
        finally:
            self.closed.set()

    async def _answers(self, request):
        for number in range(int(request.inputs["x"].flat[0])):
            answer = await self.infer(request)
            last = request.id == "final" and number + 1 == request.inputs["x"].flat[0]
            yield InferResponse(
                answer.model_name,
                answer.model_version,
                {"y": np.float32([[number]])},
                id=request.id,
                final=last,
            )
        if request.id == "fails":
            raise Overloaded("enough")


def _response(request, y):
    return InferResponse(request.model_name, "1", {"y": y}, id=request.id)


class Registry:
    """The models above under their names."""

    settings = ServeSettings()

    def __init__(self):
        self.models = {"double": Doubling(), "count": Counting()}
        self.generation = 0
        self.settings = ServeSettings()
        self.all_loaded = asyncio.Event()
        self.all_loaded.set()

    @property
    def loaded(self):
        return self.all_loaded.is_set()

    async def until_loaded(self):
        await self.all_loaded.wait()

    def find(self, name, /, *, version=""):  # noqa: ARG002 - the real one's
        if name not in self.models:
            raise NotFound(f"Request for unknown model: {name!r} is not found")
        config = model_config_pb2.ModelConfig()
        config.model_transaction_policy.decoupled = self.models[name].decoupled
        return SimpleNamespace(
            scheduler=self.models[name], loaded=SimpleNamespace(config=config), batcher=None
        )
