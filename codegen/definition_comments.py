"""The places and comments of definitions in their protos; of all that a service uses, which ``_pb2`` modules lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codegen.comments import comment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
        SourceCodeInfo,
    )

# Field numbers in descriptor.proto; SourceCodeInfo.Location.path is made of them:
# https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2
# Everybody knows what they mean, and their comments are long.
_WELL_KNOWN = "google/protobuf/"
# Lengths of the paths of services and of RPCs. Most other places without a comment are parts of a definition.
_HAVE_LINES = (2, 4)


def remove_other_places(files: Iterable[FileDescriptorProto]) -> None:
    """Remove the places that no generator here reads: those without a comment, other than of services and RPCs.

    They are three quarters of all places, and each generator would index them.

    Args:
        files: The files, which are changed.
    """
    for file in files:
        kept = [
            place
            for place in file.source_code_info.location
            if place.leading_comments
            or place.trailing_comments
            or place.leading_detached_comments
            or len(place.path) in _HAVE_LINES
        ]
        file.source_code_info.CopyFrom(type(file.source_code_info)(location=kept))


class DefinitionComments:
    """The comments of the definitions of some files.

    Args:
        files: The files.
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._messages: dict[str, tuple[FileDescriptorProto, tuple[int, ...], DescriptorProto]] = {}
        self._enums: dict[str, tuple[FileDescriptorProto, tuple[int, ...], EnumDescriptorProto]] = {}
        self._places: dict[str, dict[tuple[int, ...], SourceCodeInfo.Location]] = {}
        self._of_types: dict[str, tuple[tuple[str, str], ...]] = {}
        for file in files:
            if file.name.startswith(_WELL_KNOWN):
                continue
            scope = f".{file.package}." if file.package else "."
            for row, message in enumerate(file.message_type):
                self._add(file, scope + message.name, (_MESSAGES, row), message)
            for row, enum in enumerate(file.enum_type):
                self._enums[scope + enum.name] = file, (_ENUMS, row), enum

    def line(self, file: FileDescriptorProto, path: tuple[int, ...]) -> int:
        """Return the line of a service or an RPC, from 1; 0 if it is not known.

        Args:
            file: Its file.
            path: Its path in the file, as in ``SourceCodeInfo.Location``.
        """
        place = self._index(file).get(path)
        return place.span[0] + 1 if place is not None else 0

    def comment(self, file: FileDescriptorProto, path: tuple[int, ...]) -> str:
        """Return the comment of a definition; "" if it has none. Arguments as for ``line``."""
        return comment(self._index(file).get(path))

    def of_service(self, file: FileDescriptorProto, index: int) -> tuple[tuple[str, str], ...]:
        """Return the comments of a service, of its RPCs and of the types in their messages, by full name.

        Args:
            file: The file of the service.
            index: Its place in the file.

        Returns:
            Pairs of a full name, as descriptors have it, and a comment that is not empty.
        """
        service = file.service[index]
        name = f"{file.package}.{service.name}" if file.package else service.name
        found = [(name, self.comment(file, (_SERVICES, index)))]
        types = []
        for row, rpc in enumerate(service.method):
            found.append((f"{name}.{rpc.name}", self.comment(file, (_SERVICES, index, _METHODS, row))))
            types += [rpc.input_type, rpc.output_type]
        seen = set(types)
        for kind in types:  # it grows
            for used in self._types_in(kind):
                if used not in seen:
                    seen.add(used)
                    types.append(used)
        for kind in dict.fromkeys(types):
            if kind not in self._of_types:  # the messages of many services are the same
                self._of_types[kind] = tuple(self._of_type(kind))
            found += self._of_types[kind]
        return tuple((name, text) for name, text in found if text)

    def _add(self, file: FileDescriptorProto, name: str, path: tuple[int, ...], message: DescriptorProto) -> None:
        self._messages[name] = file, path, message
        for row, nested in enumerate(message.nested_type):
            self._add(file, f"{name}.{nested.name}", (*path, _NESTED, row), nested)
        for row, enum in enumerate(message.enum_type):
            self._enums[f"{name}.{enum.name}"] = file, (*path, _NESTED_ENUMS, row), enum

    def _types_in(self, kind: str) -> Iterator[str]:
        if kind in self._messages:
            yield from (field.type_name for field in self._messages[kind][2].field if field.type_name)

    def _of_type(self, kind: str) -> Iterator[tuple[str, str]]:
        if kind in self._messages:
            file, path, message = self._messages[kind]
            yield kind[1:], self.comment(file, path)
            for row, field in enumerate(message.field):
                yield f"{kind[1:]}.{field.name}", self.comment(file, (*path, _FIELDS, row))
        elif kind in self._enums:
            file, path, enum = self._enums[kind]
            yield kind[1:], self.comment(file, path)
            # The values of an enum are in the scope of the enum, not within it, as in C++.
            scope = kind[1:].rpartition(".")[0]
            for row, value in enumerate(enum.value):
                name = f"{scope}.{value.name}" if scope else value.name
                yield name, self.comment(file, (*path, _VALUES, row))

    def _index(self, file: FileDescriptorProto) -> dict[tuple[int, ...], SourceCodeInfo.Location]:
        places = self._places.get(file.name)
        if places is None:
            places = self._places[file.name] = {
                tuple(place.path): place
                for place in file.source_code_info.location
                if place.leading_comments or place.trailing_comments or len(place.path) in _HAVE_LINES
            }
        return places
