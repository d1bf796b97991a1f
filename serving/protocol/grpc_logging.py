"""The gRPC method of the logging extension."""

from typing import Any

from tritonclient.grpc import service_pb2

from serving.dataplane import DataPlane
from serving.log_settings import LogValue
from serving.protocol.grpc_method import AnyMethod, Method

_FIELDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def logging_methods(dataplane: DataPlane) -> dict[str, AnyMethod]:
    """LogSettings: changes the settings that are named, answers all."""

    async def update(request: Any, _deadline_ns: int | None) -> Any:
        changes = {}
        for name, value in request.settings.items():
            choice = value.WhichOneof("parameter_choice")
            changes[name] = getattr(value, choice) if choice else None
        dataplane.logs.update(changes)
        return service_pb2.LogSettingsResponse(
            settings={name: _value(value) for name, value in dataplane.logs.table.items()}
        )

    return {"LogSettings": Method(service_pb2.LogSettingsRequest, update)}


def _value(value: LogValue) -> Any:
    kind = service_pb2.LogSettingsResponse.SettingValue
    return kind(**{_FIELDS[type(value)]: value})
