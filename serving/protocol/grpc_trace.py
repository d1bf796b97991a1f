"""The gRPC method of the trace extension."""

from typing import Any

from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.protocol.grpc_method import AnyMethod, Method
from serving.trace_settings import TraceValue


def trace_methods(dataplane: DataPlane) -> dict[str, AnyMethod]:
    """TraceSetting: changes the settings that are named, answers all."""

    async def update(request: Any, _deadline_ns: int | None) -> Any:
        changes = {name: _given(name, field.value) for name, field in request.settings.items()}
        table = dataplane.trace_settings(request.model_name, changes=changes)
        response = service_pb2.TraceSettingResponse()
        for name, value in table.items():
            response.settings[name].value.extend([value] if isinstance(value, str) else value)
        return response

    return {"TraceSetting": Method(service_pb2.TraceSettingRequest, update)}


def _given(name: str, values: Any) -> TraceValue:
    """A list for the level, one text for the others; None, which clears, where there is none."""
    if name == "trace_level" or len(values) > 1:
        return list(values)
    return values[0] if values else None
