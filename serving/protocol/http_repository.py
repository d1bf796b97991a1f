"""HTTP routes of the model repository extension."""

import base64
import binascii
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ridgeline.errors import InvalidInput, Malformed, Unsupported
from serving.control import ModelControl
from serving.dataplane import DataPlane
from serving.override import Override
from serving.protocol.http_routes import body_of, route
from serving.protocol.load_parameters import FILE_PREFIX, override_of

_REPOSITORIES = ("/v2/repository", "/v2/repository/{repository}")


def repository_routes(dataplane: DataPlane, *, max_request_bytes: int) -> list[Route]:
    """POST .../index, .../models/{model}/load and /unload; the only repository has no name."""
    repository = _Repository(dataplane.control, max_request_bytes=max_request_bytes)
    post = ("POST",)
    routes = []
    for path in _REPOSITORIES:
        routes += [
            route(f"{path}/index", repository.index, methods=post),
            route(f"{path}/models/{{model}}/load", repository.load, methods=post),
            route(f"{path}/models/{{model}}/unload", repository.unload, methods=post),
        ]
    return routes


class _Repository:
    def __init__(self, control: ModelControl, *, max_request_bytes: int) -> None:
        self._control = control
        self._max_request_bytes = max_request_bytes

    async def index(self, request: Request) -> Response:
        """The models and their states; as in Triton, whatever repository is named."""
        table = await table_of(request, most_bytes=self._max_request_bytes)
        ready = _of_type(table.get("ready", False), bool, name="ready")
        entries = await self._control.index(ready=ready)
        return JSONResponse(
            [
                {key: value for key, value in vars(entry).items() if value or key == "name"}
                for entry in entries
            ]
        )

    async def load(self, request: Request) -> Response:
        """Load a model, perhaps with another configuration and other files."""
        parameters = await self._parameters(request)
        override = _override(parameters)
        await self._control.load(request.path_params["model"], override=override)
        return Response()

    async def unload(self, request: Request) -> Response:
        """Unload a model; unknown parameters are ignored, as in Triton."""
        wish = (await self._parameters(request)).get("unload_dependents", False)
        dependents = _of_type(wish, bool, name="parameter 'unload_dependents'")
        await self._control.unload(request.path_params["model"], dependents=dependents)
        return Response()

    async def _parameters(self, request: Request) -> dict[str, Any]:
        if "repository" in request.path_params:
            raise Unsupported("'repository_name' specification is not supported")
        table = await table_of(request, most_bytes=self._max_request_bytes)
        parameters: dict[str, Any] = _of_type(table.get("parameters", {}), dict, name="parameters")
        return parameters


async def table_of(request: Request, *, most_bytes: int) -> dict[str, Any]:
    """The body of a request that is a JSON object, or nothing at all. Raises InvalidInput."""
    body = await body_of(request, most_bytes=most_bytes)
    if not body:
        return {}
    try:
        table: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the request is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise InvalidInput(f"the request must be an object, received {str(table)[:80]!r}")
    return table


def _of_type(value: Any, kind: type[Any], *, name: str) -> Any:
    words = {bool: "true or false", dict: "an object", str: "a text"}
    if type(value) is not kind:
        raise Malformed(f"{name} must be {words[kind]}, received {str(value)[:80]!r}")
    return value


def _override(parameters: dict[str, Any]) -> Override | None:
    for name, value in parameters.items():
        _of_type(value, str, name=f"parameter {name[:80]!r}")
    config = parameters.get("config")
    files = {}
    for name, value in parameters.items():
        if name.startswith(FILE_PREFIX):
            try:
                files[name] = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError) as error:
                raise InvalidInput(f"parameter {name[:80]!r} is not base64: {error}") from error
    others = [name for name in parameters if name != "config" and name not in files]
    return override_of(config, files=files, others=others)
