"""Model of a proto file for the templates: frozen values built from the descriptors that protoc hands to a plugin."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, MethodOptions

from codegen import imports, module_names, naming
from codegen.definition_comments import DefinitionComments
from codegen.errors import CodegenError
from codegen.module_names import MessageLocation, ModuleNames, ModuleTree, ServiceNames
from sdk._proto_files.fingerprint import fingerprint

if TYPE_CHECKING:
    from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        MethodDescriptorProto,
    )

# Field numbers in descriptor.proto; SourceCodeInfo.Location.path is made of them:
# https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
_SERVICE = 6
_METHOD = 2

# What protoc's `_pb2` modules define next to what the proto does, and use after it.
_OF_PROTOC = frozenset({"DESCRIPTOR", "_builder", "_descriptor", "_globals"})

# Formats of `struct`, and the smallest normal numbers. glibc reports an underflow for a smaller one, and protobuf takes
# that for an error: https://man7.org/linux/man-pages/man3/strtod.3.html
_SMALLEST = {
    FieldDescriptorProto.TYPE_FLOAT: ("<f", 2.0**-126),
    FieldDescriptorProto.TYPE_DOUBLE: ("<d", 2.0**-1022),
}


@dataclass(frozen=True, slots=True)
class MessageModel:
    """A message type of an RPC.

    Attributes:
        full_name: ``"google.protobuf.Empty"``.
        expression: How the generated module spells its class, ``"empty_pb2.Empty"``.
    """

    full_name: str
    expression: str


@dataclass(frozen=True, slots=True)
class RpcModel:
    """One RPC. Most attributes are those of ``sdk.service.Method``.

    Attributes:
        kind: ``"UnaryUnary"``, ``"UnaryStream"``, ``"StreamUnary"`` or ``"StreamStream"``.
        comment: The proto's comment, without its markers.
    """

    name: str
    python_name: str
    path: str
    kind: str
    request: MessageModel
    response: MessageModel
    comment: str
    line: int
    deprecated: bool
    idempotency: str

    @property
    def client_streaming(self) -> bool:
        """True if the client sends a stream of messages."""
        return self.kind.startswith("Stream")

    @property
    def server_streaming(self) -> bool:
        """True if the server answers with a stream of messages."""
        return self.kind.endswith("Stream")

    @property
    def handle_kind(self) -> str:
        """Name of its class in a handle, ``"HandleStream"``."""
        return module_names.handle_kind(self.kind)

    @property
    def cardinality(self) -> str:
        """Name of the ``sdk.service.Cardinality``, ``"UNARY_STREAM"``."""
        return naming.constant(self.kind)


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """One service.

    Attributes:
        deprecated: Whether the proto marks the service, or the whole file, as deprecated.
        comments: Full names and comments of all definitions that it uses, itself included.
    """

    name: str
    full_name: str
    names: ServiceNames
    rpcs: tuple[RpcModel, ...]
    comment: str
    line: int
    deprecated: bool
    comments: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FileModel:
    """One proto file with services.

    Attributes:
        proto: Path of the proto file as protoc knows it.
        output: Path of the generated module, below the output folder.
        names: The names in the generated module.
        first_party: Top-level names by which modules of the same output folder are imported.
        services: Its services, in the order of the proto.
        proto_hash: Fingerprint of the proto file.
    """

    proto: str
    output: str
    names: ModuleNames
    first_party: frozenset[str]
    services: tuple[ServiceModel, ...]
    proto_hash: str

    @property
    def exports(self) -> tuple[str, ...]:
        """The public names of the generated module, in the order of ruff's rule for ``__all__``."""
        derived = [name for each in self.names.services for name in dataclasses.astuple(each) if name != each.bound]
        return tuple(sorted([*derived, *(alias.name for alias in self.names.aliases)], key=imports.by_kind))


def files(
    request: CodeGeneratorRequest, package: str | None = None, all_protos: Collection[str] | None = None
) -> Iterator[FileModel]:
    """Yield the model of every file to generate that has services.

    Args:
        request: The request of protoc. It contains the files to generate and everything that they import.
        package: Dotted name of the package that the output folder is; ``""`` if the folder is on ``sys.path``. With
            either, modules import one another from where :func:`codegen.relocate.relocate` puts them. None leaves them
            where protoc puts them.
        all_protos: Names of all proto files whose modules are in the output folder, if they are more than the files to
            generate.

    Raises:
        CodegenError: ``package`` is not a valid package name, or a definition would break protoc's module.
    """
    locations = dict(_messages(request.proto_file))
    tree = ModuleTree.of(request.file_to_generate if all_protos is None else all_protos, package)
    by_name = {file.name: file for file in request.proto_file}
    comments = DefinitionComments(request.proto_file)
    for name in request.file_to_generate:
        _require_free_names(by_name[name])
        _require_normal_defaults(by_name[name])
        if by_name[name].service:
            yield _file(by_name[name], locations, tree, comments)


def _require_free_names(file: FileDescriptorProto) -> None:
    names = [each.name for kind in (file.message_type, file.enum_type, file.extension) for each in kind]
    for name in names:
        if name in _OF_PROTOC:
            raise CodegenError(
                f"{file.name}: {name} can't be imported: protoc's Python module has something else of this name; "
                "rename it"
            )


def _require_normal_defaults(file: FileDescriptorProto) -> None:
    if file.syntax == "proto3":  # it has no defaults
        return
    scope = f"{file.package}." if file.package else ""
    for name, field in _fields(scope, file.extension, file.message_type):
        format_, smallest = _SMALLEST.get(field.type, ("", 0.0))
        if field.default_value and format_ and 0 < abs(_rounded(field.default_value, format_)) < smallest:
            raise CodegenError(
                f"{file.name}: {name} can't be imported: protobuf refuses the default {field.default_value}, which is "
                f"closer to 0 than {smallest:.9g}, the smallest normal number of its type; write 0 or a larger one"
            )


def _rounded(number: str, format_: str) -> float:
    (rounded,) = struct.unpack(format_, struct.pack(format_, float(number)))
    return float(rounded)


def _fields(
    scope: str, extensions: Iterable[FieldDescriptorProto], messages: Iterable[DescriptorProto]
) -> Iterator[tuple[str, FieldDescriptorProto]]:
    """Yield the full name and the field of each field and extension in a file or a message."""
    yield from ((scope + field.name, field) for field in extensions)
    for message in messages:
        inner = f"{scope}{message.name}."
        yield from ((inner + field.name, field) for field in message.field)
        yield from _fields(inner, message.extension, message.nested_type)


def _messages(protos: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, MessageLocation]]:
    """Yield each message's full name, with a leading dot, and its location."""

    def walk(
        file: str, prefix: str, path: str, found: Iterable[DescriptorProto]
    ) -> Iterator[tuple[str, MessageLocation]]:
        for message in found:
            inner = f"{path}.{message.name}" if path else message.name
            yield prefix + inner, MessageLocation(file, inner)
            yield from walk(file, prefix, inner, message.nested_type)

    for proto in protos:
        yield from walk(proto.name, f".{proto.package}." if proto.package else ".", "", proto.message_type)


def _file(
    proto: FileDescriptorProto,
    locations: Mapping[str, MessageLocation],
    tree: ModuleTree,
    comments: DefinitionComments,
) -> FileModel:
    names = module_names.resolve(proto, locations, tree)

    def message(type_name: str) -> MessageModel:
        return MessageModel(type_name[1:], names.messages[type_name[1:]])

    package = proto.package + "." if proto.package else ""
    services = []
    for index, (service, python_names, derived) in enumerate(
        zip(proto.service, names.rpcs, names.services, strict=True)
    ):
        full_name = package + service.name
        rpcs = tuple(
            RpcModel(
                name=rpc.name,
                python_name=python_name,
                path=f"/{full_name}/{rpc.name}",
                kind=module_names.kind(rpc),
                request=message(rpc.input_type),
                response=message(rpc.output_type),
                comment=comments.comment(proto, (_SERVICE, index, _METHOD, row)),
                line=comments.line(proto, (_SERVICE, index, _METHOD, row)),
                deprecated=rpc.options.deprecated,
                idempotency=_idempotency(rpc),
            )
            for row, (rpc, python_name) in enumerate(zip(service.method, python_names, strict=True))
        )
        deprecated = service.options.deprecated or proto.options.deprecated
        services.append(
            ServiceModel(
                service.name,
                full_name,
                derived,
                rpcs,
                comments.comment(proto, (_SERVICE, index)),
                comments.line(proto, (_SERVICE, index)),
                deprecated,
                comments.of_service(proto, index),
            )
        )

    return FileModel(
        proto=proto.name,
        output=tree.module(proto.name, "sdk").replace(".", "/") + ".py",
        names=names,
        first_party=tree.tops,
        services=tuple(services),
        proto_hash=fingerprint(proto.SerializeToString()),
    )


def _idempotency(rpc: MethodDescriptorProto) -> str:
    return MethodOptions.IdempotencyLevel.Name(rpc.options.idempotency_level).removeprefix("IDEMPOTENCY_").lower()
