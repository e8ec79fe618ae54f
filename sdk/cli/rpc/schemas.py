"""Sources of descriptors: reflection of a server, proto files, or a file of descriptors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from sdk._protos.descriptors import Descriptors
from sdk.cli.proto_files import read_descriptors
from sdk.errors import ServerError

if TYPE_CHECKING:
    from sdk.cli.rpc.connection import ServerConnection

#: Prefixes of built-in services, which do not belong to an application.
BUILT_IN = ("grpc.", "ray.serve.")


class Schema(Protocol):
    """A source of services and their types.

    Attributes:
        source: Its name in messages, ``"The server at localhost:9000"``.
    """

    source: str

    def services(self) -> list[str]:
        """Return the full names of the services."""

    def describe(self, services: Iterable[str]) -> Descriptors:
        """Return the files of some services, with all that they import."""

    def describe_lack(self) -> str:
        """Return the reason why there are no services but built-in ones; empty if there is no other."""


class ServerSchema:
    """The reflection of a server: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md.

    Args:
        connection: The server.
        remedy: The remedy if it has no reflection, for the error.
        timeout: Timeout of each call in seconds.

    Raises:
        ServerError: By the methods: the server has no reflection, or does not answer.
    """

    def __init__(self, connection: ServerConnection, remedy: str = "", timeout: float = 10.0) -> None:
        from sdk._protos.reflection_client import ReflectionClient

        self.source = f"The server at {connection.target}"
        self._connection = connection
        self._remedy = remedy
        self._reflection = ReflectionClient(
            connection.channel, connection.metadata, timeout=timeout, target=connection.target
        )

    def services(self) -> list[str]:
        """Return the full names of the services."""
        from sdk._protos.reflection_client import NoReflectionError

        try:
            return self._reflection.services()
        except NoReflectionError:
            raise ServerError(f"{self.source} has no server reflection. {self._remedy}") from None

    def describe(self, services: Iterable[str]) -> Descriptors:
        """Return the files of some services, with all that they import."""
        return Descriptors(self._reflection.file_descriptor_set(services), self._connection.target)

    def describe_lack(self) -> str:
        """Return the reason why there are no services but built-in ones."""
        from sdk.cli.rpc.application_names import describe_lack

        return describe_lack(self._connection)


class FileSchema:
    """Proto files and files of descriptors.

    Args:
        paths: Proto files, folders of them, and files of descriptors.
        includes: Folders to look for imported protos in.
        option: The option of the command line that gave them, for messages: ``"--protos"``.

    Raises:
        OptionsError: A file can't be read, or has an error.
    """

    def __init__(self, paths: Sequence[Path], includes: Sequence[Path], option: str) -> None:
        self.source = f"{option} {' '.join(map(str, paths))}".strip()
        files = FileDescriptorSet()
        known: set[str] = set()
        for each in read_descriptors(paths, includes, option).file:
            if each.name not in known:
                known.add(each.name)
                files.file.append(each)
        self._descriptors = Descriptors(files, self.source)

    def services(self) -> list[str]:
        """Return the full names of the services."""
        return sorted(self._descriptors.services)

    def describe(self, services: Iterable[str]) -> Descriptors:
        """Return all files."""
        return self._descriptors

    def describe_lack(self) -> str:
        """Return the reason why there are no services but built-in ones."""
        return ""
