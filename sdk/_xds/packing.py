"""Pack our copies of Envoy's messages, with the ``type_url`` of Envoy's own message."""

from __future__ import annotations

from dataclasses import dataclass
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
    """Pack a message that is a part of another one."""
    return Any(type_url=type_url(type(message)), value=_encode(message))


def pack_resource(message: Message) -> Resource:
    """Pack a resource. Equal messages give equal bytes, so packed resources can be compared."""
    return Resource(type_url(type(message)), (_encode(message),))


def _encode(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class Resource:
    """An encoded resource.

    The endpoints of a deployment are up to a megabyte, of which a change concerns little. So they are in pieces, which
    are shared with the resource before, and are copied once: into the response.

    Attributes:
        type_url: Its type.
        pieces: Its encoding, in order.
    """

    type_url: str
    pieces: tuple[bytes, ...]

    @property
    def value(self) -> bytes:
        """Its encoding."""
        return b"".join(self.pieces)

    def as_field(self, number: int) -> tuple[bytes, ...]:
        """Return the encoding of a field of type ``Any`` with the resource, in pieces."""
        size = sum(map(len, self.pieces))
        head = Any(type_url=self.type_url).SerializeToString() + field_head(Any.VALUE_FIELD_NUMBER, size)
        return field_head(number, len(head) + size), head, *self.pieces


def field_head(number: int, size: int) -> bytes:
    r"""Return what precedes the value of a message's field that is a message, a string or bytes.

    https://protobuf.dev/programming-guides/encoding/#length-types

    Args:
        number: Number of the field, at most 15.
        size: Size of the encoded value.

    Example:
        >>> field_head(2, len(b"abc")) + b"abc"
        b'\x12\x03abc'
    """
    head = bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head)


CLUSTER_TYPE = type_url(pb.Cluster)
ENDPOINT_TYPE = type_url(pb.ClusterLoadAssignment)
FILTER_TYPE = type_url(pb.CoreTypedExtensionConfig)
LISTENER_TYPE = type_url(pb.Listener)
ROUTE_TYPE = type_url(pb.RouteConfiguration)
