"""Names of types as proto source refers to them: the shortest that protoc resolves to the type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto


class TypeNames:
    """Types, services and packages of some files, as scopes of names.

    protoc looks for the first part of a name in the innermost scope, then outwards, and takes the first it finds:
    https://protobuf.dev/programming-guides/proto3/#name-resolution.

    Args:
        files: The file that names the types, and all that it imports.

    Example:
        >>> from google.protobuf.descriptor_pb2 import FileDescriptorProto
        >>> file = FileDescriptorProto(package="shop.v1", message_type=[{"name": "Order"}, {"name": "Shop"}])
        >>> names = TypeNames([file])
        >>> names.shortest("shop.v1.Order", "shop.v1.Shop"), names.shortest("google.protobuf.Any", "shop.v1")
        ('Order', 'google.protobuf.Any')
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._known = {name for file in files for name in _names(file)}

    def shortest(self, full_name: str, scope: str) -> str:
        """Return the name of a type in a scope; with a leading dot, as protoc's full name, where it would be hidden.

        Args:
            full_name: The full name of the type, ``"shop.v1.Order"``.
            scope: The full name of the message or service that names it, or the package.
        """
        parts, scopes = full_name.split("."), scope.split(".") if scope else []
        for length in range(len(parts) - 1, -1, -1):
            if parts[:length] == scopes[:length] and self._resolves(parts[length], scopes, length):
                return ".".join(parts[length:])
        return f".{full_name}"

    def _resolves(self, first: str, scopes: list[str], length: int) -> bool:
        """Return True if no scope further in than ``length`` parts of ``scopes`` has the first part of a name."""
        inner_scopes = (scopes[:inner] for inner in range(length + 1, len(scopes) + 1))
        return not any(".".join([*scope, first]) in self._known for scope in inner_scopes)


def _names(file: FileDescriptorProto) -> Iterator[str]:
    parts = file.package.split(".") if file.package else []
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    prefix = f"{file.package}." if file.package else ""
    yield from (f"{prefix}{enum.name}" for enum in file.enum_type)
    for service in file.service:
        yield f"{prefix}{service.name}"
        yield from (f"{prefix}{service.name}.{method.name}" for method in service.method)  # they hide types, too
    for message in file.message_type:
        yield from _names_in(message, prefix)


def _names_in(message: DescriptorProto, prefix: str) -> Iterator[str]:
    inner = f"{prefix}{message.name}"
    yield inner
    yield from (f"{inner}.{enum.name}" for enum in message.enum_type)
    for nested in message.nested_type:
        yield from _names_in(nested, f"{inner}.")
