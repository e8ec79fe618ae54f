"""Proto files as descriptors: collected from services, loaded into a separate pool, and found by name."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    SourceCodeInfo,
)
from google.protobuf.descriptor_pool import DescriptorPool

from sdk._proto_files.order import imports_first
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, ServiceDescriptor

    from sdk.service import Service

_WELL_KNOWN = re.compile(r"google/protobuf/(\w+)\.proto")

# Field numbers in google/protobuf/descriptor.proto, which make up the paths of source_code_info:
# https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2
# The span of a place whose line is unknown: every definition has some characters.
_NO_LINE = [0, 0, 0]


def with_imports(files: Iterable[FileDescriptor]) -> FileDescriptorSet:
    """Return proto files and all that they import, each after its own imports.

    Args:
        files: The files, for example ``DESCRIPTOR`` of ``_pb2`` modules.

    Example:
        >>> from google.protobuf.api_pb2 import DESCRIPTOR
        >>> [file.name.rpartition("/")[2] for file in with_imports([DESCRIPTOR]).file]
        ['source_context.proto', 'any.proto', 'type.proto', 'api.proto']
    """
    result = FileDescriptorSet()
    for file in imports_first(files, lambda file: file.dependencies):
        file.CopyToProto(result.file.add())
    return result


def files_of_services(services: Iterable[Service]) -> FileDescriptorSet:
    """Return the files of services with all that they import, and with the line numbers that the services know."""
    known = list(services)
    described = with_imports(service.file for service in known)
    files = {file.name: file for file in described.file}
    for service in known:
        file = files[service.file.name]
        index = next(i for i, each in enumerate(file.service) if each.name == service.name)
        methods = {method.name: i for i, method in enumerate(file.service[index].method)}
        _set_line(file, [_SERVICES, index], service.line)
        for method in service.methods:
            _set_line(file, [_SERVICES, index, _METHODS, methods[method.name]], method.line)
    return described


def add_comments(files: FileDescriptorSet, comments: Mapping[str, str]) -> None:
    """Add comments to files, whose definitions then have places without lines.

    Args:
        files: The files.
        comments: Comments by the full name of their definition.

    Example:
        >>> from google.protobuf.source_context_pb2 import DESCRIPTOR
        >>> files = with_imports([DESCRIPTOR])
        >>> add_comments(files, {"google.protobuf.SourceContext": "Where it comes from."})
        >>> Descriptors(files, "here").comment("google.protobuf.SourceContext")
        ['Where it comes from.']
    """
    for file in files.file:
        for name, path in _definitions(file):
            if name in comments:
                text = "".join(f" {line}\n" for line in comments[name].splitlines())
                # Some readers refuse a place without a span.
                file.source_code_info.location.add(path=path, span=_NO_LINE, leading_comments=text)


class Descriptors:
    """Proto files in a separate descriptor pool, so that two versions of one file can be compared.

    Args:
        files: The files with all that they import, in any order.
        source: Origin of the files, for messages.

    Attributes:
        services: The services by full name, in the order of the files.

    Raises:
        OptionsError: A file is missing or invalid.
    """

    def __init__(self, files: FileDescriptorSet, source: str) -> None:
        self._pool = DescriptorPool()
        self._files = {file.name: file for file in files.file}
        self._order: list[str] = []
        for file in _ordered(self._files, source):
            if file.name in self._files:
                self._order.append(file.name)
            try:
                self._pool.AddSerializedFile(file.SerializeToString())
            except TypeError as error:
                raise OptionsError(f"{source}: {file.name} can't be loaded: {' '.join(str(error).split())}") from None
        loaded = (self._pool.FindFileByName(name) for name in self._files)
        self.services: dict[str, ServiceDescriptor] = {
            service.full_name: service for file in loaded for service in file.services_by_name.values()
        }

    @functools.cached_property
    def _places(self) -> dict[str, SourceCodeInfo.Location]:
        """Place of each definition by its full name. Many files are loaded for their types alone."""
        return {name: place for file in self._files.values() for name, place in _places(file)}

    def has_file(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return name in self._files

    @property
    def pool(self) -> DescriptorPool:
        """The descriptor pool with every type of the files."""
        return self._pool

    @property
    def file_descriptor_set(self) -> FileDescriptorSet:
        """The files that were passed to the constructor, each after its imports."""
        return FileDescriptorSet(file=[self._files[name] for name in self._order])

    def types(self) -> dict[str, Descriptor | EnumDescriptor]:
        """Return every message and enum of the files by full name, nested ones included."""
        found: dict[str, Descriptor | EnumDescriptor] = {}

        def add(message: Descriptor) -> None:
            if not message.GetOptions().map_entry:
                found[message.full_name] = message
                found.update((enum.full_name, enum) for enum in message.enum_types)
                for nested in message.nested_types:
                    add(nested)

        for name in self._files:
            file = self._pool.FindFileByName(name)
            found.update((enum.full_name, enum) for enum in file.enum_types_by_name.values())
            for message in file.message_types_by_name.values():
                add(message)
        return found

    def file(self, name: str) -> FileDescriptorProto:
        """Return a file as it was passed to the constructor, with its comments if it has them.

        Raises:
            KeyError: There is no such file.
        """
        return self._files[name]

    def message(self, full_name: str) -> Descriptor | None:
        """Return a message, or None."""
        try:
            return self._pool.FindMessageTypeByName(full_name)
        except KeyError:
            return None

    def location(self, descriptor: Any, name: str = "") -> str:
        """Return the file of a descriptor, with the line if the files have line numbers, ``"greet.proto:7"``.

        Args:
            descriptor: The descriptor.
            name: Full name of a part of it, such as an enum value, whose descriptor has no full name.
        """
        place = self._places.get(name or descriptor.full_name)
        if place is not None and list(place.span) == _NO_LINE:
            place = None
        owner = getattr(descriptor, "containing_service", None) or descriptor
        return f"{owner.file.name}:{place.span[0] + 1}" if place is not None else str(owner.file.name)

    def comment(self, full_name: str) -> list[str]:
        """Return the lines of the comment before a definition, or else of that behind it; none without comments."""
        place = self._places.get(full_name)
        if place is None:
            return []
        return [line.strip() for line in (place.leading_comments or place.trailing_comments).splitlines()]


def well_known(name: str) -> FileDescriptorProto | None:
    """Return a well-known proto file of the installed protobuf package, or None.

    Args:
        name: ``"google/protobuf/empty.proto"``.

    Example:
        >>> well_known("google/protobuf/empty.proto").message_type[0].name
        'Empty'
    """
    match = _WELL_KNOWN.fullmatch(name)
    if match is None:
        return None
    try:
        module = importlib.import_module(f"google.protobuf.{match[1]}_pb2")
    except ModuleNotFoundError:
        return None
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def _ordered(files: Mapping[str, FileDescriptorProto], source: str) -> list[FileDescriptorProto]:
    """Return each file after its imports; well-known files are added."""
    known = dict(files)

    def imports_of(name: str) -> Iterable[str]:
        for imported in known[name].dependency:
            if imported not in known:
                file = well_known(imported)
                if file is None:
                    raise OptionsError(
                        f"{source} lacks {imported}, which {name} imports: "
                        "create it with all imports (protoc: --include_imports)"
                    )
                known[imported] = file
        return known[name].dependency

    return [known[name] for name in imports_first(files, imports_of)]


def _places(file: FileDescriptorProto) -> Iterator[tuple[str, SourceCodeInfo.Location]]:
    """Yield the full name of each definition in a file, and its place in the source."""
    places = {tuple(place.path): place for place in file.source_code_info.location if place.span}
    if places:
        yield from ((name, places[path]) for name, path in _definitions(file) if path in places)


def _definitions(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the full name of each definition in a file, and its path in ``source_code_info``."""

    def enum(proto: EnumDescriptorProto, scope: str, *path: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{scope}{proto.name}", path
        # The values of an enum are in the scope of the enum, not within it, as in C++.
        yield from ((f"{scope}{value.name}", (*path, _VALUES, i)) for i, value in enumerate(proto.value))

    def message(proto: DescriptorProto, scope: str, *path: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        inner = f"{scope}{proto.name}."
        yield inner[:-1], path
        yield from ((f"{inner}{field.name}", (*path, _FIELDS, i)) for i, field in enumerate(proto.field))
        for i, nested in enumerate(proto.nested_type):
            yield from message(nested, inner, *path, _NESTED, i)
        for i, nested_enum in enumerate(proto.enum_type):
            yield from enum(nested_enum, inner, *path, _NESTED_ENUMS, i)

    scope = f"{file.package}." if file.package else ""
    for i, each in enumerate(file.message_type):
        yield from message(each, scope, _MESSAGES, i)
    for i, each_enum in enumerate(file.enum_type):
        yield from enum(each_enum, scope, _ENUMS, i)
    for i, service in enumerate(file.service):
        yield f"{scope}{service.name}", (_SERVICES, i)
        for j, method in enumerate(service.method):
            yield f"{scope}{service.name}.{method.name}", (_SERVICES, i, _METHODS, j)


def _set_line(file: FileDescriptorProto, path: Sequence[int], line: int) -> None:
    if line:
        file.source_code_info.location.add(path=path, span=[line - 1, 0, 0])
