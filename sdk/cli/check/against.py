"""``sdk check --against``: compare services with another version, from a file, protos, a commit of git, or a server."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdk._protos.breaking.services import compare
from sdk._protos.descriptors import Descriptors, files_of_services
from sdk.cli.check.git_version import git_version, is_git_version
from sdk.cli.check.report import VersionComparison
from sdk.cli.proto_files import read_descriptors
from sdk.errors import OptionsError

if TYPE_CHECKING:
    from sdk.service import Service

# A server, optionally with TLS, and optionally one of its applications.
_SERVER = re.compile(
    r"(?P<tls>https://|grpcs://)?(http://|grpc://)?(?P<target>[^/\s]+:\d+)(/(?P<application>[^/\s]+))?/?"
)
_BUILT_IN = ("grpc.", "ray.serve.")


def compare_against(
    services: Sequence[Service], other: str, strict: bool, *, served: Container[str] | None = None
) -> VersionComparison:
    """Return the changes since another version, from the clients' point of view.

    Args:
        services: The services of this version.
        other: A file of descriptors, a proto file or a folder of them, also of a commit, ``git:REF:PATH``; or
            ``HOST:PORT[/APPLICATION]``.
        strict: Also report changes that only affect clients that use JSON.
        served: Full names of the services that clients can call; None for all.

    Raises:
        OptionsError: ``other`` is neither, or can't be read.
        ServerError: The server can't be reached, or it has no reflection.
    """
    new = Descriptors(files_of_services(services), "the generated code")
    offered = [service.full_name for service in services if served is None or service.full_name in served]
    path, server = Path(other), _SERVER.fullmatch(other)
    if is_git_version(other):
        old = _read_commit(other)
        compared = _comparable(old, new, offered)
    elif os.path.exists(path):  # not Path.exists, which raises an error for a name that is too long
        old = Descriptors(read_descriptors([path], (), "--against"), other)
        compared = _comparable(old, new, offered)
    elif server is not None:
        old, listed = _read_server(server, other)
        compared = (
            listed if server["application"] else [name for name in _comparable(old, new, offered) if name in listed]
        )
    else:
        raise OptionsError(
            f"--against {other}: neither an existing file or folder, nor git:REF:PATH or HOST:PORT[/APPLICATION]"
        )
    if not old.services:
        raise OptionsError(f"--against {other}: it has no service")
    if not compared:
        here = f"not {', '.join(offered)}" if offered else "clients can't call any service here"
        note = f"nothing to compare: it has {', '.join(old.services)}, {here}"
        return VersionComparison(other, (), (), note)
    changes = compare(old, new, compared, served=offered, json=strict)
    if changes:
        from sdk.cli.check.proto_lines import with_lines

        new = Descriptors(with_lines(files_of_services(services)), "the generated code")
        changes = compare(old, new, compared, served=offered, json=strict)
    return VersionComparison(other, tuple(compared), tuple(changes))


def _comparable(old: Descriptors, new: Descriptors, served: Sequence[str]) -> list[str]:
    """Return the services of the other version that are served now, and those that were removed from the same files.

    Other services of the other version may belong to other applications.
    """
    return [
        name
        for name, service in old.services.items()
        if name in served or (name not in new.services and new.has_file(service.file.name))
    ]


def _read_commit(other: str) -> Descriptors:
    """Return the protos of a commit."""
    from codegen import config
    from codegen.errors import CodegenError

    try:
        includes = config.load(Path.cwd()).proto_path
    except CodegenError as error:
        raise OptionsError(f"--against {other}: {error}") from None
    with git_version(other, includes) as version:
        try:
            return Descriptors(read_descriptors([version.protos], version.includes, "--against"), other)
        except OptionsError as error:
            # The temporary folder says nothing to the reader.
            shown = str(error).replace(f"{version.folder}/", f"{other.rpartition(':')[0]}:")
            raise OptionsError(shown) from None


def _read_server(server: re.Match[str], other: str) -> tuple[Descriptors, list[str]]:
    """Return the files of a server, and the services that it lists, without those that are built in."""
    import grpc

    from sdk._protos.reflection_client import ReflectionClient
    from sdk.client import SyncClient

    target, application = server["target"], server["application"]
    metadata = (("application", application),) if application else ()
    credentials = grpc.ssl_channel_credentials() if server["tls"] else None
    with SyncClient(target, credentials=credentials, retry=None) as client:
        reflection = ReflectionClient(client.channel, metadata, target=target)
        listed = [name for name in reflection.services() if not name.startswith(_BUILT_IN)]
        if not listed:
            problem = f"application {application!r} has no services" if application else "it has no services"
            raise OptionsError(f"--against {other}: {problem}")
        return Descriptors(reflection.file_descriptor_set(listed), other), listed
