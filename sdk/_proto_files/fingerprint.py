r"""The fingerprint of a proto file, the same for the protoc plugin and for a loaded ``_pb2`` module.

protoc gives a plugin the descriptor with comments, derived JSON names and option-only imports
(https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/compiler/plugin.proto); ``_pb2`` embeds it
without them. They are dropped here so that both fingerprints are equal. (Neither has options with source retention.)

The text of a default value differs too: protobuf's C implementation (upb) writes a loaded file again, with other digits
(``0.1`` becomes ``0.100000001``) and other escapes (``\177`` becomes the byte). Here the value counts, not its text.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cache
from typing import TYPE_CHECKING, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_encoding
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto


def fingerprint(serialized_file: bytes) -> str:
    """Return the fingerprint of a proto file.

    Args:
        serialized_file: A serialized ``google.protobuf.FileDescriptorProto``.

    Returns:
        64 hexadecimal digits.
    """
    file = _isolated_file_class().FromString(serialized_file)
    file.ClearField("source_code_info")
    if "option_dependency" in file.DESCRIPTOR.fields_by_name:  # since protobuf 6.32
        file.ClearField("option_dependency")
    for extension in file.extension:
        _normalize_field(extension)
    for message in file.message_type:
        _normalize_fields(message)
    return hashlib.sha256(file.SerializeToString(deterministic=True)).hexdigest()


@cache
def _isolated_file_class() -> type[FileDescriptorProto]:
    # Custom options are extensions. With the process's default pool, their serialization depends on the loaded _pb2
    # modules: known extensions are sorted by number, unknown ones keep the order of the source. A separate pool knows
    # no extensions, so the same bytes have the same fingerprint in every process.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    descriptor = pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
    return cast("type[FileDescriptorProto]", message_factory.GetMessageClass(descriptor))


def _normalize_fields(message: DescriptorProto) -> None:
    for field in (*message.field, *message.extension):
        _normalize_field(field)
    for nested in message.nested_type:
        _normalize_fields(nested)


def _normalize_field(field: FieldDescriptorProto) -> None:
    field.ClearField("json_name")
    if not field.default_value:
        return
    if field.type == FieldDescriptorProto.TYPE_DOUBLE:
        field.default_value = repr(float(field.default_value))
    elif field.type == FieldDescriptorProto.TYPE_FLOAT:
        field.default_value = struct.pack("<f", float(field.default_value)).hex()
    elif field.type == FieldDescriptorProto.TYPE_BYTES:
        field.default_value = text_encoding.CUnescape(field.default_value).hex()
