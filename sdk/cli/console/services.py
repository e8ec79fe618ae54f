"""The services that the console shows, by application, and the methods that it calls."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from sdk._protos.catalog import build_catalog
from sdk.cli.rpc.error_details import with_error_details
from sdk.cli.rpc.json_messages import JsonCodec
from sdk.cli.rpc.listing import applications
from sdk.cli.rpc.schemas import Schema, ServerSchema
from sdk.cli.rpc.symbols import as_method, describe_all, is_built_in
from sdk.errors import OptionsError, ServerError

if TYPE_CHECKING:
    from sdk._protos.descriptors import Descriptors
    from sdk.cli.rpc.connection import ServerConnection
    from sdk.service import Method

_REMEDY = "Start the console with --protos PATH, the protos or descriptors of its services."


@dataclass(frozen=True, slots=True)
class CalledMethod:
    """A method of an application, and the form of its messages.

    Attributes:
        method: The method, with dynamic classes for its messages.
        codec: Converts them from and to JSON.
    """

    method: Method
    codec: JsonCodec


class Services:
    """The services of a server. Its methods block; threads may share it.

    Args:
        connection: The server.
        files: Descriptors from files, which may have comments; None for those of the server's reflection.
    """

    def __init__(self, connection: ServerConnection, files: Schema | None) -> None:
        self._connection = connection
        self._files = files
        self._lock = Lock()
        self._described: dict[str, Descriptors] = {}
        self._methods: dict[tuple[str, str], CalledMethod] = {}
        self._names = itertools.count()

    def catalog(self) -> list[dict[str, Any]]:
        """Ask the server, and return each application with its services and types as a JSON value.

        The name of the application is empty for a server without applications. ``problems`` has the reason why a
        service has no descriptor.

        Raises:
            ServerError: The server can't be reached, or has no reflection.
            OptionsError: The server sent files that can't be loaded.
        """
        found, described = [], {}
        for name, services in self._applications().items():
            files, problems = describe_all(self._schema(name), services) if services else (None, {})
            known = [service for service in services if files is not None and service in files.services]
            catalog: dict[str, Any] = {"services": [], "types": []}
            if files is not None:
                described[name] = files
                catalog = build_catalog(files, known)
            found.append({"name": name, **catalog, "problems": problems})
        with self._lock:
            self._described, self._methods = described, {}
        return found

    def method(self, application: str, path: str) -> CalledMethod:
        """Return a method of the last catalog.

        Args:
            application: Name of the application; empty for a server without applications.
            path: ``"pkg.Service/Method"``.

        Raises:
            OptionsError: There is no such method.
        """
        with self._lock:
            key = application, path
            if key not in self._methods:
                self._methods[key] = self._find(application, path)
            return self._methods[key]

    def _find(self, application: str, path: str) -> CalledMethod:
        service, _, name = path.partition("/")
        files = self._described.get(application)
        if files is None or service not in files.services or name not in files.services[service].methods_by_name:
            of_application = f" of application {application!r}" if application else ""
            raise OptionsError(f"{path!r}{of_application} is not known any more: reload the page")
        # A client keeps a method by its name, and two catalogs may have different types for one.
        method = replace(as_method(files.services[service].methods_by_name[name]), python_name=f"{next(self._names)}")
        return CalledMethod(method, JsonCodec(with_error_details(files.pool)))

    def _applications(self) -> dict[str, list[str]]:
        try:
            found = applications(self._connection)
        except ServerError:
            if self._files is None:
                raise
            found = {}  # without reflection, files still describe what can be called
        if not found:
            asked = str(dict(self._connection.metadata).get("application", ""))
            return {asked: _own((self._files or self._schema("")).services())}
        if self._files is None:
            return found
        known = set(self._files.services())
        return {name: [service for service in services if service in known] for name, services in found.items()}

    def _schema(self, application: str) -> Schema:
        if self._files is not None:
            return self._files
        others = tuple(pair for pair in self._connection.metadata if pair[0] != "application")
        metadata = (*others, ("application", application)) if application else self._connection.metadata
        return ServerSchema(replace(self._connection, metadata=metadata), _REMEDY)


def _own(services: Iterable[str]) -> list[str]:
    return [name for name in services if not is_built_in(name)]
