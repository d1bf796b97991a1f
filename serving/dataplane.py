"""What every protocol offers, without any protocol in it: health, metadata, inference."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from ridgeline import __version__
from ridgeline.errors import InvalidInput, NotFound, Unavailable
from ridgeline.model import ModelSpec
from serving.control import ModelControl
from serving.forwarding import HeaderForwarding
from serving.log_settings import LogControl
from serving.registry import Registry
from serving.request import InferRequest, InferResponse
from serving.served import UnknownVersion
from serving.shared_memory import Regions
from serving.trace_settings import TraceValue
from serving.tracing import tracing_of
from serving.version import ReadyVersion

SERVER_VERSION = __version__
EXTENSIONS = (
    "sequence",
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "logging",
    "trace",
    "parameters",
    "schedule_policy",
    "statistics",
    "system_shared_memory",
)


@dataclass(frozen=True)
class ModelMetadata:
    """A model as clients see it: contract, versions that are ready, platform."""

    spec: ModelSpec
    versions: list[str]
    platform: str


class DataPlane:
    """The operations of the Open Inference Protocol over a registry of models.

    `regions` are the clients' shared memory, `forwarding` what of header fields reaches models.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        regions: Regions | None = None,
        forwarding: HeaderForwarding | None = None,
    ) -> None:
        self._registry = registry
        self.control = ModelControl(registry)
        self.logs = LogControl()
        self.tracing = tracing_of(registry.settings)
        self.server_name = registry.settings.server_name
        self.like_triton = registry.settings.status_codes == "triton"
        self.regions = regions or Regions()
        self.forwarding = forwarding or HeaderForwarding()
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the server is about to stop: it takes no new requests."""
        return self._stopping.is_set()

    @stopping.setter
    def stopping(self, stopping: bool) -> None:
        if stopping:
            self._stopping.set()
        else:
            self._stopping.clear()

    async def until_stopping(self) -> None:
        """Return when the server stops."""
        await self._stopping.wait()

    async def until_loaded(self) -> None:
        """Return when every model has been looked at."""
        await self._registry.until_loaded()

    @property
    def ready(self) -> bool:
        """Whether every model has been looked at and the server is not stopping."""
        return self._registry.loaded and not self.stopping

    @property
    def generation(self) -> int:
        """Differs after every model version that has come or gone, and change of tracing."""
        return self._registry.generation + self.tracing.generation

    def model_ready(self, name: str, *, version: str = "") -> bool:
        """Whether that version can answer; a model that is not there is not ready.

        Raises UnknownVersion where the version is no number.
        """
        try:
            return bool(self._registry.find(name, version=version)) and not self.stopping
        except UnknownVersion:
            raise
        except (NotFound, Unavailable):
            return False

    def model_metadata(self, name: str, *, version: str = "") -> ModelMetadata:
        """What goes in and comes out. Raises NotFound or Unavailable."""
        loaded = self._registry.find(name, version=version).loaded
        return ModelMetadata(
            spec=loaded.spec, versions=self._registry.versions(name), platform=loaded.platform
        )

    def config(self, name: str, *, version: str = "") -> model_config_pb2.ModelConfig:
        """The complete configuration of a model. Raises NotFound or Unavailable."""
        return self._registry.find(name, version=version).loaded.config

    def find(self, name: str, *, version: str = "") -> ReadyVersion:
        """The version that a request asks for. Raises NotFound or Unavailable."""
        return self._registry.find(name, version=version)

    def counted(self, name: str = "", *, version: str = "") -> list[ReadyVersion]:
        """The versions that can answer, whose statistics are asked for: of all models, or of one.

        Raises InvalidInput, as Triton does, where none of that name and version can, UnknownVersion
        where the version is no number.
        """
        if version and not version.isdecimal():
            raise UnknownVersion(f"the version must be a number, received {version[:200]!r}")
        ready = [
            served.ready
            for served in self._registry
            if served.ready and name in ("", served.name) and version in ("", served.version)
        ]
        if name and not ready:
            raise InvalidInput(f"requested model {name!r} {version} is not available")
        return ready

    async def infer(self, request: InferRequest, /) -> InferResponse:
        """The one answer to a request. Raises the errors of `Registry.find`, `Scheduler.infer`."""
        model = self._registry.find(request.model_name, version=request.model_version)
        if self.tracing.active:
            return await self.tracing.infer(request, model)
        return await model.scheduler.infer(request)

    def stream(self, request: InferRequest, /) -> AsyncGenerator[InferResponse, None]:
        """Every answer to a request, as it comes. Raises the errors of `infer`."""
        model = self._registry.find(request.model_name, version=request.model_version)
        if self.tracing.active:
            return self.tracing.stream(request, model)
        return model.scheduler.stream(request)

    def trace_settings(
        self, model: str = "", *, changes: Mapping[str, TraceValue] | None = None
    ) -> dict[str, list[str] | str]:
        """The settings of traces, of a model or of the server, after the changes to them.

        Raises InvalidInput for a model that is not there, and the errors of `Tracing.update`.
        """
        if model and not any(served.name == model for served in self._registry):
            raise InvalidInput(f"Request for unknown model : {model[:200]}")
        self.tracing.update(changes or {}, model=model)
        return self.tracing.table(model)
