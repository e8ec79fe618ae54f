"""The fingerprint of a proto file, equal for the plugin (which sees the source) and for a loaded ``_pb2`` module.

protoc hands a plugin the file with its comments, derived JSON names, and what it imports for options only; ``_pb2``
embeds it without them. They are dropped here, so that the two agree. (Options retained only for the source are absent
from both already.)
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
        extension.ClearField("json_name")
    for message in file.message_type:
        _clear_json_names(message)
    return hashlib.sha256(file.SerializeToString(deterministic=True)).hexdigest()


@cache
def _isolated_file_class() -> type[FileDescriptorProto]:
    # Custom options are extensions. With the process's default pool, how they serialize depends on which _pb2 modules
    # happen to be loaded: known ones are sorted by number, unknown ones keep the order of the source. A pool of our
    # own knows none, so that the same bytes give the same fingerprint in every process.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    descriptor = pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
    return cast("type[FileDescriptorProto]", message_factory.GetMessageClass(descriptor))


def _clear_json_names(message: DescriptorProto) -> None:
    for field in (*message.field, *message.extension):
        field.ClearField("json_name")
    for nested in message.nested_type:
        _clear_json_names(nested)
