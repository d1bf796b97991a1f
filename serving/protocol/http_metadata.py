"""HTTP routes of health, metadata and model configuration."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ridgeline.model import TensorSpec
from serving.dataplane import EXTENSIONS, SERVER_VERSION, DataPlane, ModelMetadata
from serving.protocol.config_json import config_table
from serving.protocol.http_routes import MODEL_PATHS, model_of, route


def metadata_routes(dataplane: DataPlane) -> list[Route]:
    """A model's routes exist with and without a version."""
    metadata = _Metadata(dataplane)
    routes = [
        route("/v2", metadata.server_metadata),
        route("/v2/", metadata.server_metadata),
        route("/v2/health/live", metadata.live),
        route("/v2/health/ready", metadata.ready),
    ]
    for path in MODEL_PATHS:
        routes += [
            route(path, metadata.model_metadata),
            route(f"{path}/ready", metadata.model_ready),
            route(f"{path}/config", metadata.model_config),
        ]
    return routes


class _Metadata:
    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        # 503 is what KServe says and load balancers understand; Triton says 400.
        self._unready = (
            HTTPStatus.BAD_REQUEST if dataplane.like_triton else HTTPStatus.SERVICE_UNAVAILABLE
        )

    async def live(self, _request: Request) -> Response:
        """Whether the process answers at all."""
        return JSONResponse({"live": True})

    async def ready(self, _request: Request) -> Response:
        """200 while inference requests are taken, else 503."""
        return self._readiness(self._dataplane.ready, name=None)

    async def model_ready(self, request: Request) -> Response:
        """200 where that model version can answer, else 503."""
        model, version = model_of(request)
        return self._readiness(self._dataplane.model_ready(model, version=version), name=model)

    async def server_metadata(self, _request: Request) -> Response:
        """Name, version, and the extensions that are really there."""
        return JSONResponse(
            {
                "name": self._dataplane.server_name,
                "version": SERVER_VERSION,
                "extensions": list(EXTENSIONS),
            }
        )

    async def model_metadata(self, request: Request) -> Response:
        """Inputs and outputs of a model as clients see them, with the batch axis."""
        model, version = model_of(request)
        metadata = self._dataplane.model_metadata(model, version=version)
        return JSONResponse(
            {
                "name": metadata.spec.name,
                "versions": metadata.versions,
                "platform": metadata.platform,
                "inputs": [_tensor(tensor, metadata=metadata) for tensor in metadata.spec.inputs],
                "outputs": [_tensor(tensor, metadata=metadata) for tensor in metadata.spec.outputs],
            }
        )

    async def model_config(self, request: Request) -> Response:
        """The complete configuration; its parameters carry the model's cost."""
        model, version = model_of(request)
        config = self._dataplane.config(model, version=version)
        return JSONResponse(config_table(config))

    def _readiness(self, ready: bool, *, name: str | None) -> Response:
        body: dict[str, Any] = {"ready": ready} if name is None else {"name": name, "ready": ready}
        return JSONResponse(body, status_code=HTTPStatus.OK if ready else self._unready)


def _tensor(tensor: TensorSpec, *, metadata: ModelMetadata) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(metadata.spec.full_shape(tensor)),
    }
