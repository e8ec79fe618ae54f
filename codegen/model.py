"""What the templates see: frozen values built from the descriptors that protoc hands to a plugin."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import MethodOptions

from codegen import naming
from codegen.fingerprint import fingerprint

if TYPE_CHECKING:
    from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
        SourceCodeInfo,
    )

# Field numbers in descriptor.proto; SourceCodeInfo names a place in a file by the path of numbers that leads to it.
_SERVICE = 6
_METHOD = 2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")

# What a generated module may import, by the module it comes from.
_RUNTIME: Mapping[str, tuple[str, ...]] = {
    "collections.abc": ("AsyncIterator", "Awaitable", "Iterator"),
    "typing": ("Any", "ClassVar"),
    "sdk.client": (
        "AsyncClient",
        "AsyncStreamStream",
        "AsyncStreamUnary",
        "AsyncUnaryStream",
        "AsyncUnaryUnary",
        "SyncClient",
        "SyncStreamStream",
        "SyncStreamUnary",
        "SyncUnaryStream",
        "SyncUnaryUnary",
    ),
    "sdk.deployment": ("ServicerBase",),
    "sdk.service": ("Cardinality", "Method", "RequestStream", "Row", "Service", "Shim"),
}


@dataclass(frozen=True, slots=True)
class Module:
    """A ``_pb2`` module that the generated module imports.

    Attributes:
        name: ``"google.protobuf.empty_pb2"``.
        alias: The name it has in the generated module, ``"empty_pb2"``.
    """

    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message type of an RPC.

    Attributes:
        full_name: ``"google.protobuf.Empty"``.
        expression: How the generated module spells its class, ``"empty_pb2.Empty"``.
    """

    full_name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC. Most attributes are those of ``sdk.service.Method``.

    Attributes:
        kind: ``"UnaryUnary"``, ``"UnaryStream"``, ``"StreamUnary"`` or ``"StreamStream"``.
        comment: The proto's comment, without its markers.
    """

    name: str
    python_name: str
    path: str
    kind: str
    request: Message
    response: Message
    comment: str
    line: int
    deprecated: bool
    idempotency: str

    @property
    def client_streaming(self) -> bool:
        """Whether the client sends a stream of messages."""
        return self.kind.startswith("Stream")

    @property
    def server_streaming(self) -> bool:
        """Whether the server answers with a stream of messages."""
        return self.kind.endswith("Stream")

    @property
    def cardinality(self) -> str:
        """Name of the ``sdk.service.Cardinality``, ``"UNARY_STREAM"``."""
        return naming.constant(self.kind)


@dataclass(frozen=True, slots=True)
class Service:
    """One service, with the names that are derived from it."""

    name: str
    full_name: str
    constant: str
    shim: str
    base: str
    async_client: str
    sync_client: str
    rpcs: tuple[Rpc, ...]
    comment: str
    line: int

    @property
    def exports(self) -> tuple[str, ...]:
        """Every name that the generated module defines for this service."""
        return self.constant, self.shim, self.base, self.async_client, self.sync_client


@dataclass(frozen=True, slots=True)
class Import:
    """A name that the generated module imports from the SDK or the standard library."""

    module: str
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class File:
    """One proto file with services.

    Attributes:
        proto: Path of the proto file as protoc knows it.
        output: Path of the generated module, below the output folder.
        own: The proto file's own ``_pb2`` module.
        modules: All ``_pb2`` modules that the generated module imports, ``own`` among them.
        imports: The names it imports from elsewhere.
        services: Its services, in the order of the proto.
        proto_hash: Fingerprint of the proto file.
    """

    proto: str
    output: str
    own: Module
    modules: tuple[Module, ...]
    imports: tuple[Import, ...]
    services: tuple[Service, ...]
    proto_hash: str

    @property
    def exports(self) -> tuple[str, ...]:
        """Every name that the generated module defines: constants first, as ruff sorts an ``__all__``."""
        constants = sorted(service.constant for service in self.services)
        return (*constants, *sorted(name for service in self.services for name in service.exports[1:]))


def files(request: CodeGeneratorRequest) -> Iterator[File]:
    """Yield the model of every file to generate that has services.

    Args:
        request: What protoc sent. It holds the files to generate and everything they import.

    Raises:
        CodegenError: Python can't spell a name that can't be changed.
    """
    homes = dict(_messages(request.proto_file))
    by_name = {file.name: file for file in request.proto_file}
    for name in request.file_to_generate:
        if by_name[name].service:
            yield _file(by_name[name], homes)


def _messages(protos: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each message's full name with its proto file and its name without the package."""

    def walk(
        file: str, prefix: str, path: str, found: Iterable[DescriptorProto]
    ) -> Iterator[tuple[str, tuple[str, str]]]:
        for message in found:
            inner = f"{path}.{message.name}" if path else message.name
            yield prefix + inner, (file, inner)
            yield from walk(file, prefix, inner, message.nested_type)

    for proto in protos:
        yield from walk(proto.name, f".{proto.package}." if proto.package else ".", "", proto.message_type)


def _file(proto: FileDescriptorProto, homes: Mapping[str, tuple[str, str]]) -> File:
    rpc_names = [_rpc_names(service.method) for service in proto.service]
    # An RPC's name hides a module's name inside the class, so every other name keeps clear of all of them.
    taken = {name for names in rpc_names for name in names}

    derived = [
        (
            _claim(naming.constant(service.name), taken),
            _claim(service.name + "Shim", taken),
            _claim(service.name + "Base", taken),
            _claim(service.name + "Client", taken),
            _claim(service.name + "SyncClient", taken),
        )
        for service in proto.service
    ]

    needed = _needed(proto)
    imports = tuple(
        Import(module, name, _claim(name, taken))
        for module, names in _RUNTIME.items()
        for name in names
        if name in needed
    )
    types = [name for service in proto.service for rpc in service.method for name in (rpc.input_type, rpc.output_type)]
    modules = _modules([proto.name, *(homes[name][0] for name in types)], taken)

    def message(type_name: str) -> Message:
        file, path = homes[type_name]
        return Message(type_name[1:], f"{modules[file].alias}.{naming.message(file, path)}")

    package = proto.package + "." if proto.package else ""
    places = {tuple(place.path): place for place in proto.source_code_info.location}
    services = []
    for index, (service, python_names, names) in enumerate(zip(proto.service, rpc_names, derived, strict=True)):
        full_name = package + service.name
        rpcs = tuple(
            Rpc(
                name=rpc.name,
                python_name=python_name,
                path=f"/{full_name}/{rpc.name}",
                kind=_kind(rpc),
                request=message(rpc.input_type),
                response=message(rpc.output_type),
                comment=_comment(places.get((_SERVICE, index, _METHOD, row))),
                line=_line(places.get((_SERVICE, index, _METHOD, row))),
                deprecated=rpc.options.deprecated,
                idempotency=_idempotency(rpc),
            )
            for row, (rpc, python_name) in enumerate(zip(service.method, python_names, strict=True))
        )
        place = places.get((_SERVICE, index))
        services.append(Service(service.name, full_name, *names, rpcs, _comment(place), _line(place)))

    return File(
        proto=proto.name,
        output=naming.output_path(proto.name),
        own=modules[proto.name],
        modules=tuple(modules.values()),
        imports=imports,
        services=tuple(services),
        proto_hash=fingerprint(proto.SerializeToString()),
    )


def _claim(name: str, taken: set[str]) -> str:
    name = naming.free(name, taken)
    taken.add(name)
    return name


def _rpc_names(methods: Sequence[MethodDescriptorProto]) -> tuple[str, ...]:
    # Names that can stay as they are come first: `rpc bind` must not take `bind_` from an RPC that is called so.
    taken = {method.name for method in methods if naming.rpc(method.name) == method.name}
    names = []
    for method in methods:
        name = method.name if method.name in taken else naming.rpc(method.name, taken)
        taken.add(name)
        names.append(name)
    return tuple(names)


def _needed(proto: FileDescriptorProto) -> set[str]:
    """Return the names that the generated module uses; it must not import others."""
    needed = {"ClassVar", "AsyncClient", "SyncClient", "ServicerBase", "Row", "Service", "Shim"}
    for rpc in (rpc for service in proto.service for rpc in service.method):
        needed |= {"Any", "Cardinality", "Method", "Async" + _kind(rpc), "Sync" + _kind(rpc)}
        needed |= {"AsyncIterator", "Iterator"} if rpc.server_streaming else {"Awaitable"}
        needed |= {"RequestStream"} if rpc.client_streaming else set()
    return needed


def _kind(rpc: MethodDescriptorProto) -> str:
    return ("Stream" if rpc.client_streaming else "Unary") + ("Stream" if rpc.server_streaming else "Unary")


def _modules(protos: Iterable[str], taken: set[str]) -> dict[str, Module]:
    """Return the ``_pb2`` module of each proto file, under the last part of its name where that is free."""
    modules: dict[str, Module] = {}
    for proto in protos:
        if proto not in modules:
            name = naming.module(proto, "pb2")
            last = name.rpartition(".")[2]
            alias = _claim(last if last not in taken else name.replace(".", "_"), taken)
            modules[proto] = Module(name, alias)
    return modules


def _comment(place: SourceCodeInfo.Location | None) -> str:
    if place is None:
        return ""
    text = (place.leading_comments or place.trailing_comments).replace("\r\n", "\n").replace("\r", "\n")
    # cleandoc takes the indentation of the first line apart; in a proto it has the same as the others.
    return inspect.cleandoc("\n" + _CONTROL.sub(" ", text)).rstrip()


def _line(place: SourceCodeInfo.Location | None) -> int:
    return place.span[0] + 1 if place is not None else 0


def _idempotency(rpc: MethodDescriptorProto) -> str:
    return MethodOptions.IdempotencyLevel.Name(rpc.options.idempotency_level).removeprefix("IDEMPOTENCY_").lower()
