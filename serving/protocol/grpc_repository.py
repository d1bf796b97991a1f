"""The gRPC methods of the model repository extension."""

from typing import Any

from tritonclient.grpc import service_pb2

from ridgeline.errors import InvalidInput, Unsupported
from serving.control import ModelControl
from serving.dataplane import DataPlane
from serving.override import Override
from serving.protocol.grpc_method import Method
from serving.protocol.load_parameters import FILE_PREFIX, override_of


def repository_methods(dataplane: DataPlane) -> dict[str, Method]:
    """RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload."""
    repository = _Repository(dataplane.control)
    return {
        "RepositoryIndex": Method(service_pb2.RepositoryIndexRequest, repository.index),
        "RepositoryModelLoad": Method(service_pb2.RepositoryModelLoadRequest, repository.load),
        "RepositoryModelUnload": Method(
            service_pb2.RepositoryModelUnloadRequest, repository.unload
        ),
    }


class _Repository:
    def __init__(self, control: ModelControl) -> None:
        self._control = control

    async def index(self, request: Any, _deadline_ns: int | None) -> Any:
        """The models and their states."""
        _check_repository(request)
        entries = await self._control.index(ready=request.ready)
        return service_pb2.RepositoryIndexResponse(
            models=[
                service_pb2.RepositoryIndexResponse.ModelIndex(**vars(entry)) for entry in entries
            ]
        )

    async def load(self, request: Any, _deadline_ns: int | None) -> Any:
        """Load a model, perhaps with another configuration and other files."""
        _check_repository(request)
        await self._control.load(request.model_name, override=_override(request.parameters))
        return service_pb2.RepositoryModelLoadResponse()

    async def unload(self, request: Any, _deadline_ns: int | None) -> Any:
        """Unload a model; unknown parameters are ignored, as in Triton."""
        _check_repository(request)
        dependents = False
        if "unload_dependents" in request.parameters:
            dependents = _value(request.parameters, "unload_dependents", of="bool_param")
        await self._control.unload(request.model_name, dependents=dependents)
        return service_pb2.RepositoryModelUnloadResponse()


def _check_repository(request: Any) -> None:
    if request.repository_name:
        raise Unsupported("'repository_name' specification is not supported")


def _override(parameters: Any) -> Override | None:
    config = _value(parameters, "config", of="string_param") if "config" in parameters else None
    names = [name for name in parameters if name.startswith(FILE_PREFIX)]
    files = {name: _value(parameters, name, of="bytes_param") for name in names}
    others = [name for name in parameters if name != "config" and name not in files]
    return override_of(config, files=files, others=others)


def _value(parameters: Any, name: str, *, of: str) -> Any:
    choice = parameters[name].WhichOneof("parameter_choice")
    if choice != of:
        raise InvalidInput(f"parameter {name[:80]!r} must be a {of}, received {choice}")
    return getattr(parameters[name], of)
