"""JSON schemas of protobuf messages, as `config_json.message_table` writes them."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Schema = dict[str, Any]
_NUMBERS: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}


def reference(name: str) -> Schema:
    """A reference to the schema of that name among the components of the description."""
    return {"$ref": f"#/components/schemas/{name}"}


def message_schemas(kind: type[Message]) -> dict[str, Schema]:
    """The schemas of a message and of every message inside it, by name without the package.

    Fields without presence are always written, so they are required; others are optional.
    """
    found: dict[str, Schema] = {}
    left = [kind.DESCRIPTOR]
    while left:
        descriptor = left.pop()
        if _name(descriptor) in found:
            continue
        found[_name(descriptor)] = _schema(descriptor)
        left += [field.message_type for field in _fields(descriptor) if field.message_type]
    return {name: found[name] for name in sorted(found) if not name.endswith("Entry")}


def _name(descriptor: Any) -> str:
    """`inference.ModelConfig.Foo` as "ModelConfig.Foo"."""
    name: str = descriptor.full_name.partition(".")[2]
    return name


def _fields(descriptor: Any) -> list[FieldDescriptor]:
    return list(descriptor.fields)


def _schema(descriptor: Any) -> Schema:
    fields = _fields(descriptor)
    schema: Schema = {
        "type": "object",
        "properties": {field.name: _field(field) for field in fields},
        "additionalProperties": False,
    }
    required = [field.name for field in fields if not field.has_presence]
    return {**schema, "required": required} if required else schema


def _field(field: FieldDescriptor) -> Schema:
    message = field.message_type
    if message and message.GetOptions().map_entry:
        return {
            "type": "object",
            "additionalProperties": _value(message.fields_by_name["value"]),
        }
    return {"type": "array", "items": _value(field)} if field.is_repeated else _value(field)


def _value(field: FieldDescriptor) -> Schema:
    if field.message_type:
        return reference(_name(field.message_type))
    if field.enum_type:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return dict(_NUMBERS[field.cpp_type])
