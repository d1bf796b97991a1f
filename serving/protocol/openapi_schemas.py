"""The JSON schemas of what the HTTP API reads and writes."""

from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2

from ridgeline.datatypes import DATATYPES
from serving.log_settings import LogSettings
from serving.protocol.openapi_messages import Schema, message_schemas, reference
from serving.trace_settings import LEVELS

_TEXT: Schema = {"type": "string"}
_SWITCH: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SCALAR: Schema = {"type": ["string", "boolean", "number"]}
_DATATYPE: Schema = {"type": "string", "enum": list(DATATYPES)}
_LOG_KINDS: dict[Any, str] = {bool: "boolean", int: "integer", str: "string"}


def _said(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _table(properties: dict[str, Schema], *, required: str = "", description: str = "") -> Schema:
    """An object; `required` are names with blanks between them. Other fields may come too."""
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    return _said(schema, description) if description else schema


def _closed(properties: dict[str, Schema], *, optional: str = "", description: str = "") -> Schema:
    """An object of the server's own: nothing but these fields, all but the `optional` ones."""
    required = " ".join(name for name in properties if name not in optional.split())
    schema = _table(properties, required=required, description=description)
    return {**schema, "additionalProperties": False}


_SHAPE = _said(
    {"type": "array", "items": _COUNT, "maxItems": 64}, "sizes of the axes, the batch's first"
)
_PLACE: dict[str, Schema] = {
    "shared_memory_region": _said(_TEXT, "name of a registered region where the tensor lies"),
    "shared_memory_byte_size": _said(_COUNT, "bytes of the tensor, or room for it, there"),
    "shared_memory_offset": _said(_COUNT, "where it begins in the region; 0 unless told"),
}
_REQUEST_PARAMETERS: Schema = {
    "type": "object",
    "description": "what the server does not know goes to the model; `triton_` is reserved",
    "properties": {
        "priority": _said(_COUNT, "0 for the model's default, 1 for the highest"),
        "timeout": _said(_COUNT, "microseconds that the request may wait"),
        "binary_data_output": _said(_SWITCH, "all outputs as binary data, unless one says else"),
        "sequence_id": {"type": ["integer", "string"], "description": "correlation id"},
        "sequence_start": _said(_SWITCH, "this is the first request of the sequence"),
        "sequence_end": _said(_SWITCH, "this is the last request of the sequence"),
    },
    "additionalProperties": _SCALAR,
    "propertyNames": {"not": {"pattern": "^triton_"}},
}
_INPUT = _table(
    {
        "name": _TEXT,
        "datatype": _DATATYPE,
        "shape": _SHAPE,
        "data": _said(reference("TensorData"), "left out where the tensor comes otherwise"),
        "parameters": _table(
            {
                "binary_data_size": _said(_COUNT, "bytes of the tensor behind the JSON"),
                **_PLACE,
            }
        ),
    },
    required="name datatype shape",
)
_WISH = _table(
    {
        "name": _TEXT,
        "parameters": _table(
            {
                "binary_data": _said(_SWITCH, "this output as binary data"),
                "classification": _said(_COUNT, "the N largest values instead of the tensor"),
                **_PLACE,
            }
        ),
    },
    required="name",
)
_OUTPUT = _closed(
    {
        "name": _TEXT,
        "datatype": _DATATYPE,
        "shape": _SHAPE,
        "data": _said(reference("TensorData"), "not there for binary data or shared memory"),
        "parameters": _closed({"binary_data_size": _COUNT}),
    },
    optional="data parameters",
)
_TENSOR_METADATA = _closed(
    {
        "name": _TEXT,
        "datatype": _DATATYPE,
        "shape": _said(_list_of({"type": "integer", "minimum": -1}), "-1 for a free axis"),
    }
)


def _log_settings(*, nothing: bool) -> dict[str, Schema]:
    """The settings of the log; `nothing` may stand for a value that is to stay."""
    kinds = LogSettings.__annotations__
    found: dict[str, Schema] = {}
    for name, kind in kinds.items():
        schema_kind = _LOG_KINDS[kind]
        found[name] = {"type": [schema_kind, "null"] if nothing else schema_kind}
    found["log_verbose_level"]["minimum"] = 0
    return found


_TRACE_SETTINGS: dict[str, Schema] = {
    "trace_level": _list_of({"enum": list(LEVELS)}),
    "trace_rate": _said(_TEXT, "one of so many requests is traced"),
    "trace_count": _said(_TEXT, "so many are still traced; -1 for any number"),
    "log_frequency": _said(_TEXT, "traces of one file; 0 for all"),
}
SCHEMAS: dict[str, Schema] = {
    "Error": _closed(
        {"error": _said(_TEXT, "what was received and what was expected")},
        description="Every error of every route.",
    ),
    "TensorData": _said(
        _list_of({"anyOf": [_SCALAR, reference("TensorData")]}),
        "Elements in row-major order, flat or nested as the shape. UINT64 is exact.",
    ),
    "InferRequest": _table(
        {
            "id": _said(_TEXT, "comes back in the answer"),
            "parameters": _REQUEST_PARAMETERS,
            "inputs": _list_of(_INPUT),
            "outputs": _said(_list_of(_WISH), "left out: all outputs"),
        },
        required="inputs",
    ),
    "InferResponse": _closed(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "parameters": {"type": "object", "additionalProperties": _SCALAR},
            "outputs": _list_of(_OUTPUT),
        },
        optional="id parameters",
    ),
    "GenerateRequest": {
        "type": "object",
        "description": "A field named as an input of the model is that input, `id` the request's "
        "id, any other one a parameter of the request.",
        "properties": {"parameters": {"type": "object", "additionalProperties": _SCALAR}},
        "additionalProperties": {"anyOf": [_SCALAR, _list_of(_SCALAR)]},
    },
    "GenerateResponse": {
        "type": "object",
        "description": "Beside these fields, each output by its name: a value, or a flat list.",
        "properties": {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT},
        "required": ["model_name", "model_version"],
    },
    "GenerateEvent": _table(
        {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": [reference("GenerateResponse"), reference("Error")]},
            }
        },
        required="data",
        description="One server-sent event: its `data` are a GenerateResponse, or an Error.",
    ),
    "Live": _closed({"live": {"const": True}}),
    "Ready": _closed({"ready": _SWITCH}),
    "ModelReady": _closed({"name": _TEXT, "ready": _SWITCH}),
    "ServerMetadata": _closed(
        {
            "name": _TEXT,
            "version": _TEXT,
            "extensions": _said(_list_of(_TEXT), "the extensions that are really there"),
        }
    ),
    "ModelMetadata": _closed(
        {
            "name": _TEXT,
            "versions": _said(_list_of(_TEXT), "those that are ready, oldest first"),
            "platform": _TEXT,
            "inputs": _list_of(_TENSOR_METADATA),
            "outputs": _list_of(_TENSOR_METADATA),
        }
    ),
    "Statistics": _closed({"model_stats": _list_of(reference("ModelStatistics"))}),
    "LogSettings": _closed(_log_settings(nothing=False)),
    "LogChanges": _table(
        _log_settings(nothing=True),
        description="Settings left out or null stay; unknown names are ignored. `log_file` cannot "
        "be set over the network. `log_format` is default or ISO8601.",
    ),
    "TraceSettings": _closed({**_TRACE_SETTINGS, "trace_file": _TEXT, "trace_mode": _TEXT}),
    "TraceChanges": _table(
        {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in _TRACE_SETTINGS.items()},
        description="Settings left out stay; null takes a model's back to the server's, and the "
        "server's to those of its start. Unknown names are ignored. `trace_file` cannot be set "
        "over the network.",
    ),
    "IndexRequest": _table({"ready": _said(_SWITCH, "only versions that are ready")}),
    "Index": _list_of(
        _closed(
            {
                "name": _TEXT,
                "version": _TEXT,
                "state": {"enum": ["LOADING", "READY", "UNAVAILABLE", "UNLOADING"]},
                "reason": _said(_TEXT, "why it is unavailable"),
            },
            optional="version state reason",
        )
    ),
    "LoadRequest": _table(
        {
            "parameters": {
                "type": "object",
                "properties": {"config": _said(_TEXT, "a configuration in JSON")},
                "patternProperties": {"^file:": _said(_TEXT, "a file of the model, in base64")},
                "additionalProperties": False,
            }
        },
        description="`config` stands in for `config.pbtxt`, `file:<version>/<name>` bring files.",
    ),
    "UnloadRequest": _table(
        {
            "parameters": _table(
                {"unload_dependents": _said(_SWITCH, "also the models that it consists of")}
            )
        }
    ),
    "SystemRegion": _table(
        {
            "key": _said(_TEXT, "name of the POSIX shared memory, like `/my_region`"),
            "offset": _said(_COUNT, "where the region begins in it; 0 unless told"),
            "byte_size": {"type": "integer", "minimum": 1},
        },
        required="key byte_size",
    ),
    "SystemRegions": _list_of(
        _closed({"name": _TEXT, "key": _TEXT, "offset": _COUNT, "byte_size": _COUNT})
    ),
    "CudaRegion": _table(
        {
            "raw_handle": _table({"b64": _TEXT}),
            "device_id": {"type": "integer"},
            "byte_size": {"type": "integer"},
        }
    ),
    "CudaRegions": {"type": "array", "maxItems": 0},
    **message_schemas(service_pb2.ModelStatistics),
    **message_schemas(model_config_pb2.ModelConfig),
}
