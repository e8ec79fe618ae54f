"""Lookup of services, methods and types by name: the full name, or an unambiguous end of it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sdk.cli.rpc.schemas import BUILT_IN, Schema
from sdk.errors import OptionsError, ServerError
from sdk.service import Cardinality, Method

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from sdk._protos.descriptors import Descriptors

_MANY = 12


def find_method(schema: Schema, name: str) -> tuple[MethodDescriptor, Descriptors]:
    """Return a method, and the files that it needs.

    Args:
        schema: The source of the descriptors.
        name: ``"pkg.Service/Method"`` or ``"pkg.Service.Method"``, or the end of it after a dot or slash.

    Raises:
        OptionsError: No method has this name, or several have it.
        ServerError: The server has no descriptors of its services.
    """
    wanted = name.strip("/").replace("/", ".")
    services = schema.services()
    service, _, last = wanted.rpartition(".")
    if service in services:  # the common case: only one service has to be described
        descriptors = schema.describe([service])
        if service in descriptors.services and last in descriptors.services[service].methods_by_name:
            return descriptors.services[service].methods_by_name[last], descriptors
    descriptors, _ = describe_all(schema, services)
    methods = {
        method.full_name: method
        for each in services
        if each in descriptors.services
        for method in descriptors.services[each].methods
    }
    found = _named(wanted, methods)
    if len(found) == 1:
        return methods[found[0]], descriptors
    if found:
        raise OptionsError(f"{name!r} is ambiguous: {', '.join(map(path_of, found))}")
    own = _named(wanted, [each for each in services if each in descriptors.services])
    if own:
        has = ", ".join(f"{own[0]}/{method.name}" for method in descriptors.services[own[0]].methods)
        raise OptionsError(f"{name!r} is a service; give one of its methods: {has}")
    if all(map(is_built_in, services)):
        raise OptionsError(f"{schema.source} has no method {name!r}: {schema.describe_lack() or 'it has no service'}")
    raise OptionsError(f"{schema.source} has no method {name!r}; {_near(wanted, methods, services)}")


def describe_all(schema: Schema, services: Iterable[str]) -> tuple[Descriptors, dict[str, str]]:
    """Return the files of services, and the problem of each service that has no descriptor.

    Args:
        schema: The source of the descriptors.
        services: Full names of the services.

    Raises:
        ServerError: No service has a descriptor.
    """
    wanted, problems = list(services), dict[str, str]()
    try:
        return schema.describe(wanted), problems
    except ServerError:
        for each in wanted:
            try:
                schema.describe([each])
            except ServerError as error:  # the others are still shown
                problems[each] = str(error)
        if len(problems) == len(wanted):
            raise
    return schema.describe([each for each in wanted if each not in problems]), problems


def find_symbol(descriptors: Descriptors, services: Collection[str], name: str, source: str) -> Any:
    """Return the descriptor of a service, a method, a message or an enum.

    Args:
        descriptors: The files to search.
        services: Full names of the services to search.
        name: Its full name, or the end of it after a dot; a method may be written with a slash.
        source: The source of the files, for messages.

    Raises:
        OptionsError: No symbol has this name, or several have it.
    """
    wanted = name.strip("/.").replace("/", ".")
    symbols: dict[str, Any] = {}
    for each in services:
        if each in descriptors.services:
            service = descriptors.services[each]
            symbols[service.full_name] = service
            symbols.update((method.full_name, method) for method in service.methods)
    symbols.update(descriptors.types())
    found = _named(wanted, symbols)
    if len(found) == 1:
        return symbols[found[0]]
    if found:
        raise OptionsError(f"{name!r} is ambiguous: {', '.join(found)}")
    near = difflib.get_close_matches(wanted, symbols, n=1) or _close_ends(wanted, symbols)
    hint = f"did you mean {near[0]}?" if near else _listed(services)
    raise OptionsError(f"{source} has no service, method or type {name!r}; {hint}")


def as_method(descriptor: MethodDescriptor) -> Method:
    """Return a method for a client, with dynamic classes for its messages."""
    from google.protobuf.message_factory import GetMessageClass

    return Method(
        name=descriptor.name,
        python_name="method",
        path=f"/{path_of(descriptor.full_name)}",
        cardinality=cardinality_of(descriptor),
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        deprecated=bool(descriptor.GetOptions().deprecated),
    )


def cardinality_of(method: MethodDescriptor) -> Cardinality:
    """Return the cardinality of a method."""
    sides = ("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    return Cardinality("_".join(sides))


def path_of(full_name: str) -> str:
    """Return the path of a method without the first slash, ``"pkg.Service/Method"``."""
    service, _, method = full_name.rpartition(".")
    return f"{service}/{method}"


def is_built_in(full_name: str) -> bool:
    """Return whether a name is that of a built-in service, or of a symbol in its package."""
    return full_name.startswith(BUILT_IN)


def _named(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the matches of a name: itself, else names that end with it; otherwise built-in ones."""
    known = list(names)
    if wanted in known:
        return [wanted]
    found = [name for name in known if name.endswith(f".{wanted}")]
    return [name for name in found if not is_built_in(name)] or found


def _near(wanted: str, methods: Iterable[str], services: Iterable[str]) -> str:
    known = list(methods)
    near = difflib.get_close_matches(wanted, known, n=1) or _close_ends(wanted, known)
    if near:
        return f"did you mean {path_of(near[0])}?"
    return _listed(services)


def _listed(services: Iterable[str]) -> str:
    own = [name for name in services if not is_built_in(name)]
    return f"it has {', '.join(own[:_MANY])}{', …' * (len(own) > _MANY)}" if own else "it has no service"


def _close_ends(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the name whose last parts are most similar, for names without their package."""
    ends = dict(_ends(names, wanted.count(".") + 1))
    return [ends[end] for end in difflib.get_close_matches(wanted, ends, n=1)]


def _ends(names: Iterable[str], parts: int) -> Iterator[tuple[str, str]]:
    for name in names:
        yield ".".join(name.split(".")[-parts:]), name
