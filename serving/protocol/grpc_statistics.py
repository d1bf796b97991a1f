"""The gRPC method of the statistics extension."""

from typing import Any

from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.protocol.grpc_method import Method
from serving.protocol.statistics_message import statistics_message


def statistics_methods(dataplane: DataPlane) -> dict[str, Method]:
    """ModelStatistics, for all models, one, or one version."""

    async def statistics(request: Any, _deadline_ns: int | None) -> Any:
        found = dataplane.counted(request.name, version=request.version)
        return service_pb2.ModelStatisticsResponse(
            model_stats=[statistics_message(version) for version in found]
        )

    return {"ModelStatistics": Method(service_pb2.ModelStatisticsRequest, statistics)}
