"""Messages of protoc, read without the extensions of the modules that this process has loaded.

With those, protobuf refuses a user's option that has the number of one of them and another type.
"""

from __future__ import annotations

from typing import TypeVar, cast

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

_M = TypeVar("_M", bound=Message)

_POOL = DescriptorPool()
for _file in (descriptor_pb2, plugin_pb2):
    _POOL.AddSerializedFile(_file.DESCRIPTOR.serialized_pb)


def isolated(message: type[_M]) -> type[_M]:
    """Return the class of the same message that takes every extension for an unknown field."""
    found = _POOL.FindMessageTypeByName(message.DESCRIPTOR.full_name)
    return cast("type[_M]", message_factory.GetMessageClass(found))
