"""A model configuration, and other messages, as Triton writes them in JSON."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2

_WHOLE_NUMBERS = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def config_table(config: model_config_pb2.ModelConfig) -> dict[str, Any]:
    """The configuration with its defaults (`max_batch_size: 0`), and 64-bit numbers as numbers."""
    return message_table(config)


def message_table(message: Message) -> dict[str, Any]:
    """A message as a table, with its defaults, and 64-bit numbers as numbers."""
    table: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _restore_numbers(table, type(message).DESCRIPTOR)
    return table


def _restore_numbers(table: dict[str, Any], descriptor: Any) -> None:
    """Protobuf's JSON spells 64-bit numbers as texts; clients of Triton expect numbers."""
    for field in descriptor.fields:
        if field.name not in table:
            continue
        value = table[field.name]
        if field.cpp_type in _WHOLE_NUMBERS:
            table[field.name] = [int(v) for v in value] if field.is_repeated else int(value)
        elif field.message_type and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"].message_type
            if kind:
                for item in value.values():
                    _restore_numbers(item, kind)
        elif field.message_type:
            for item in value if field.is_repeated else [value]:
                _restore_numbers(item, field.message_type)
