"""The fingerprint of a proto file, equal for the plugin (which sees the source) and for a loaded ``_pb2`` module.

protoc hands a plugin the file with its comments and derived JSON names; ``_pb2`` embeds it without them. Both are
dropped here, and so are the options that protoc retains only for the source, so that the two agree.
"""

from __future__ import annotations

import hashlib

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto


def fingerprint(serialized_file: bytes) -> str:
    """Return the fingerprint of a proto file.

    Args:
        serialized_file: A serialized ``google.protobuf.FileDescriptorProto``.

    Returns:
        64 hexadecimal digits.
    """
    file = FileDescriptorProto.FromString(serialized_file)
    file.ClearField("source_code_info")
    for extension in file.extension:
        extension.ClearField("json_name")
    for message in file.message_type:
        _clear_json_names(message)
    return hashlib.sha256(file.SerializeToString(deterministic=True)).hexdigest()


def _clear_json_names(message: DescriptorProto) -> None:
    for field in (*message.field, *message.extension):
        field.ClearField("json_name")
    for nested in message.nested_type:
        _clear_json_names(nested)
