"""HTTP routes of the statistics extension."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.dataplane import DataPlane
from serving.protocol.config_json import message_table
from serving.protocol.http_routes import MODEL_PATHS, route
from serving.protocol.statistics_message import statistics_message


def statistics_routes(dataplane: DataPlane) -> list[Route]:
    """GET v2/models[/{model}[/versions/{version}]]/stats; stand before those of a model "stats"."""

    async def statistics(request: Request) -> Response:
        """What the models have done since they were loaded."""
        found = dataplane.counted(
            request.path_params.get("model", ""), version=request.path_params.get("version", "")
        )
        tables = [message_table(statistics_message(version)) for version in found]
        return JSONResponse({"model_stats": tables})

    return [route(f"{path}/stats", statistics) for path in ("/v2/models", *MODEL_PATHS)]
