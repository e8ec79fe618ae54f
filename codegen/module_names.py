"""Names in a generated module: those that it imports, and those that it defines."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from codegen import naming, relocate

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto

# Names that a generated module may import, by the module that defines them.
_RUNTIME: Mapping[str, tuple[str, ...]] = {
    "collections.abc": ("Awaitable",),
    "typing": ("TYPE_CHECKING", "Any", "ClassVar"),
    # The same as that of `warnings` in Python 3.13 and later.
    "typing_extensions": ("deprecated",),
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
    "sdk.deployment": ("BoundAs", "BoundDeployment", "ServicerBase"),
    "sdk.handles": ("HandleStream", "HandleStreamStream", "HandleStreamUnary", "HandleUnary", "ServiceHandle"),
    "sdk.service": ("Cardinality", "Method", "MethodBinding", "RequestStream", "ResponseStream", "Service", "Shim"),
}


@dataclass(frozen=True, slots=True)
class Import:
    """A name that the generated module imports: ``from module import name as alias``.

    Attributes:
        module: ``"google.protobuf"``, ``"..types"``; ``""`` for a module that ``import name`` imports.
        name: ``"empty_pb2"``.
        alias: Its name in the generated module.
        typed: Whether it is known to have types.
    """

    module: str
    name: str
    alias: str
    typed: bool = True


@dataclass(frozen=True, slots=True)
class DynamicImport:
    """A ``_pb2`` module that no import statement can name; ``importlib.import_module`` imports it.

    Attributes:
        name: ``"lambda.shop_pb2"``.
        alias: Its name in the generated module.
    """

    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class MessageAlias:
    """A name that the generated module gives to a message class, since Python can't spell the original one.

    Attributes:
        name: ``"None_"``.
        expression: The class at run time, ``'getattr(shop_pb2, "None")'``.
        stub: The class for type checkers, ``"shop_pb2._r_None"``. Often the same.
    """

    name: str
    expression: str
    stub: str


@dataclass(frozen=True, slots=True)
class ServiceNames:
    """The names that a generated module defines for one service."""

    constant: str
    shim: str
    base: str
    async_client: str
    sync_client: str
    handle: str
    bound: str  # for type checkers only


@dataclass(frozen=True, slots=True)
class ModuleNames:
    """The names in one generated module.

    Attributes:
        own: Name of the proto's own ``_pb2`` module.
        imports: The names that import statements import.
        dynamic_imports: The modules that no import statement can name.
        runtime: Names in this module of what it imports from the SDK and the standard library, by the original name.
        aliases: The messages that the module gives a name to.
        messages: The expression of each message class that an RPC names, by the message's full name.
        rpcs: The names of each service's RPCs.
        services: The names derived from each service.
    """

    own: str
    imports: tuple[Import, ...]
    dynamic_imports: tuple[DynamicImport, ...]
    runtime: Mapping[str, str]
    aliases: tuple[MessageAlias, ...]
    messages: Mapping[str, str]
    rpcs: tuple[tuple[str, ...], ...]
    services: tuple[ServiceNames, ...]


@dataclass(frozen=True, slots=True)
class MessageLocation:
    """The definition of a message.

    Attributes:
        proto: Path of the proto file.
        path: The message's name without its package, ``"Outer.Inner"``.
    """

    proto: str
    path: str


@dataclass(frozen=True)
class ModuleTree:
    """The modules of one output folder, by the names under which they are imported.

    Attributes:
        package: The package that the folder is; ``""`` for a folder on ``sys.path``, None to leave the modules where
            protoc puts them.
        stems: Dotted name of each module without its suffix, by the name that protoc gives it.
    """

    package: str | None
    stems: Mapping[str, str]

    @classmethod
    def of(cls, protos: Iterable[str], package: str | None) -> ModuleTree:
        """Return the tree of the modules of ``protos``.

        Raises:
            CodegenError: ``package`` is not a valid package name.
        """
        names = [naming.module(proto) for proto in protos]
        if package is None:
            return cls(None, {name: name for name in names})
        relocate.check_package(package)
        return cls(package, relocate.importable_names(set(names) - relocate.WELL_KNOWN))

    def module(self, proto: str, suffix: str) -> str:
        """Return the dotted name of a module of a proto: below the output folder if it is there."""
        name = naming.module(proto)
        return f"{self.stems.get(name, name)}_{suffix}"

    def imported(self, importer: str, proto: str, alias: str) -> Import | DynamicImport:
        """Return the import of the ``_pb2`` module of ``proto`` in the module ``importer``."""
        name = self.module(proto, "pb2")
        package, _, last = name.rpartition(".")
        is_ours = naming.module(proto) in self.stems
        if self.package and is_ours:
            return Import(relocate.import_from(importer, name, self.package), last, alias)
        if all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
            return Import(package, last, alias, typed=is_ours or package == "google.protobuf")
        return DynamicImport(name, alias)

    @cached_property
    def tops(self) -> frozenset[str]:
        """Top-level names by which the modules are imported; empty in a package, where imports are relative."""
        return frozenset() if self.package else frozenset(f"{s}_pb2".partition(".")[0] for s in self.stems.values())


def resolve(proto: FileDescriptorProto, locations: Mapping[str, MessageLocation], tree: ModuleTree) -> ModuleNames:
    """Return the names in the ``_sdk`` module of a proto file.

    Args:
        proto: The proto file.
        locations: The definition of each message, by its full name with a leading dot.
        tree: The modules of the output folder.
    """
    methods = [method for service in proto.service for method in service.method]
    rpcs = tuple(naming.rpcs([method.name for method in service.method]) for service in proto.service)
    # Inside the class, an RPC hides a module of the same name, so no other name may be the name of an RPC.
    taken = {"sdk", *(name for names in rpcs for name in names)}
    services = tuple(_derived(naming.stem(service.name), taken) for service in proto.service)

    types = dict.fromkeys(name for method in methods for name in (method.input_type, method.output_type))
    modules: dict[str, Import | DynamicImport] = {}
    for file in (proto.name, *(locations[name].proto for name in types)):
        if file not in modules:
            alias = _claim_module(tree.module(file, "pb2"), taken)
            modules[file] = tree.imported(tree.module(proto.name, "sdk"), file, alias)

    messages: dict[str, str] = {}
    aliases = []
    for name in types:
        module, path = modules[locations[name].proto], locations[name].path
        expression = messages[name[1:]] = naming.message(module.alias, path)
        if isinstance(module, DynamicImport) or not naming.is_spelled(path):
            alias = messages[name[1:]] = _claim(naming.message_alias(path), taken, vars(builtins))
            stub = "Any" if isinstance(module, DynamicImport) else naming.message_stub(module.alias, path)
            aliases.append(MessageAlias(alias, expression, stub))

    needed = _needed(proto, methods)
    runtime = [
        Import(module, name, _claim(name, taken))
        for module, names in _RUNTIME.items()
        for name in names
        if name in needed
    ]
    return ModuleNames(
        own=modules[proto.name].alias,
        imports=(*runtime, *(module for module in modules.values() if isinstance(module, Import))),
        dynamic_imports=tuple(module for module in modules.values() if isinstance(module, DynamicImport)),
        runtime={each.name: each.alias for each in runtime},
        aliases=tuple(aliases),
        messages=messages,
        rpcs=rpcs,
        services=services,
    )


def _claim(name: str, taken: set[str], also: Collection[str] = ()) -> str:
    name = naming.free(name, {*taken, *also})
    taken.add(name)
    return name


def _claim_module(name: str, taken: set[str]) -> str:
    # A module has the last part of its dotted name if that is free.
    last = _variable(name.rpartition(".")[2])
    return _claim(last if last not in taken else _variable(name), taken)


def _variable(module: str) -> str:
    # Python mangles `__x` in a class.
    variable = re.sub(r"^__+", "_", re.sub(r"\W", "_", module))
    return "_" + variable if variable[:1].isdigit() else variable


def _derived(stem: str, taken: set[str]) -> ServiceNames:
    return ServiceNames(
        constant=_claim(naming.constant(stem), taken),
        shim=_claim(stem + "Shim", taken),
        base=_claim(stem + "Base", taken),
        async_client=_claim(stem + "Client", taken),
        sync_client=_claim(stem + "SyncClient", taken),
        handle=_claim(stem + "Handle", taken),
        bound=_claim(f"_{stem}Bound", taken),
    )


def _needed(proto: FileDescriptorProto, methods: Sequence[MethodDescriptorProto]) -> set[str]:
    """Return the names of the SDK and the standard library that the generated module uses; it must not import more."""
    needed = {"TYPE_CHECKING", "ClassVar", "AsyncClient", "SyncClient", "MethodBinding", "Service", "Shim"}
    needed |= {"BoundAs", "BoundDeployment", "ServicerBase", "ServiceHandle"}
    for method in methods:
        flow = kind(method)
        needed |= {"Any", "Cardinality", "Method", "Async" + flow, "Sync" + flow}
        needed |= {"ResponseStream" if method.server_streaming else "Awaitable"}
        needed |= {handle_kind(flow)} | ({"RequestStream"} if method.client_streaming else set())
    deprecated = proto.options.deprecated or any(service.options.deprecated for service in proto.service)
    return needed | ({"deprecated"} if deprecated or any(method.options.deprecated for method in methods) else set())


def handle_kind(kind: str) -> str:
    """Return the class of an RPC in a handle, by the RPC's kind.

    Example:
        >>> handle_kind("UnaryStream"), handle_kind("StreamUnary")
        ('HandleStream', 'HandleStreamUnary')
    """
    return "Handle" + kind.removeprefix("Unary")


def kind(method: MethodDescriptorProto) -> str:
    """Return the cardinality of an RPC as class names have it: ``"UnaryUnary"``, ``"UnaryStream"``, …."""
    return f"{'Stream' if method.client_streaming else 'Unary'}{'Stream' if method.server_streaming else 'Unary'}"
