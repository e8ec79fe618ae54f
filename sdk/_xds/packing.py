"""Pack our copies of Envoy's messages into ``Any``, with the ``type_url`` of Envoy's own message."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any

from sdk._gen import envoy_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message


def type_url(message: type[Message]) -> str:
    """Return Envoy's ``type_url`` of one of the top-level messages in ``protos/sdk/envoy.proto``."""
    return _type_url(message.DESCRIPTOR)


@cache
def _type_url(descriptor: Descriptor) -> str:
    name = descriptor.GetOptions().Extensions[pb.envoy_name]
    if not name:
        raise ValueError(f"{descriptor.full_name} has no (envoy_name), so it can't be packed")
    return f"type.googleapis.com/{name}"


def pack(message: Message) -> Any:
    """Pack a message. Equal messages give equal bytes, so packed resources can be compared."""
    return Any(type_url=type_url(type(message)), value=message.SerializeToString(deterministic=True))


def length_delimited(number: int, data: bytes) -> bytes:
    r"""Return a field of a message, with the encoded value of a message or a string.

    https://protobuf.dev/programming-guides/encoding/#length-types

    Args:
        number: Number of the field, at most 15.
        data: The value.

    Example:
        >>> length_delimited(2, b"abc")
        b'\x12\x03abc'
    """
    head, size = bytearray([number << 3 | 2]), len(data)
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + data


CLUSTER_TYPE = type_url(pb.Cluster)
ENDPOINT_TYPE = type_url(pb.ClusterLoadAssignment)
FILTER_TYPE = type_url(pb.CoreTypedExtensionConfig)
LISTENER_TYPE = type_url(pb.Listener)
ROUTE_TYPE = type_url(pb.RouteConfiguration)
