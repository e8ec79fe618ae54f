"""Knowledge of all files that protoc has parsed in one or more runs, without their descriptors, which may be large."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.proto import parse_length_prefixed

from codegen.isolated import isolated

if TYPE_CHECKING:
    from io import BytesIO


class _Named(Protocol):
    name: str


class ParsedFiles:
    """Files that protoc has parsed.

    Attributes:
        digests: Digest of the descriptor of each file by name.
    """

    def __init__(self) -> None:
        self.digests: dict[str, bytes] = {}
        self._is_repeated = False
        # Hashes, since a large tree has hundreds of thousands of names. Two names with one hash cost a run of protoc.
        self._owners: dict[int, str] = {}
        self._scopes: set[int] = set()

    @property
    def may_conflict(self) -> bool:
        """True if two files may define the same name, which protoc finds only when it parses both."""
        return self._is_repeated or not self._owners.keys().isdisjoint(self._scopes)

    def owner(self, name: str) -> str | None:
        """Return the file that defines a name, other than that of a package; None if no file does."""
        return self._owners.get(hash(name))

    def add(self, descriptors: Path) -> None:
        """Add the files of a serialized ``FileDescriptorSet``, one by one: in memory all take ten times as much."""
        with descriptors.open("rb") as stream:
            # Each file is one field: a tag of one byte, the length, the content.
            # https://protobuf.dev/programming-guides/encoding/#length-types
            while stream.read(1):
                # Any buffered stream will do.
                file = parse_length_prefixed(isolated(FileDescriptorProto), cast("BytesIO", stream))
                if file.name not in self.digests:
                    self._add(file)

    def _add(self, file: FileDescriptorProto) -> None:
        self.digests[file.name] = hashlib.sha256(file.SerializeToString(deterministic=True)).digest()
        parts = file.package.split(".") if file.package else []
        self._scopes.update(hash(".".join(parts[: n + 1])) for n in range(len(parts)))
        for name in defined_names(file):
            key = hash(name)
            self._is_repeated |= key in self._owners
            self._owners[key] = file.name


def defined_names(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the names that no other file may define, and the numbers of extensions."""
    scope = f"{file.package}." if file.package else ""
    # The values of an enum are in the scope of the enum:
    # https://protobuf.dev/reference/protobuf/proto3-spec/#enum_definition
    values = (value for enum in file.enum_type for value in enum.value)
    named: tuple[_Named, ...] = (*file.message_type, *file.enum_type, *values, *file.service, *file.extension)
    yield from (scope + element.name for element in named)
    for extension in file.extension:
        yield f"{extension.extendee} {extension.number}"
