"""List of the services of a server, with the applications and the health of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import grpc

from sdk._gen import health_pb2
from sdk.cli.rpc.application_names import application_names
from sdk.cli.rpc.symbols import cardinality_of, is_built_in, path_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, MethodDescriptor

    from sdk._protos.descriptors import Descriptors
    from sdk.cli.rpc.connection import ServerConnection

_HEALTH = "grpc.health.v1.Health"
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """Applications and health of a service.

    Attributes:
        applications: Names of the applications that serve it; empty if the server does not report applications.
        health: ``"SERVING"``, ``"NOT_SERVING"``…, or ``""`` if the server does not report it.
    """

    applications: tuple[str, ...] = ()
    health: str = ""


def service_infos(connection: ServerConnection, services: Sequence[str]) -> dict[str, ServiceInfo]:
    """Return the applications and the health of services, by full name.

    Args:
        connection: The server.
        services: Full names of the services.

    Raises:
        ServerError: The server is our ingress, or Ray Serve's, and does not list its applications.
    """
    known = applications(connection)
    healths = {name: _health(connection, name) for name in services}
    return {
        name: ServiceInfo(tuple(application for application, served in known.items() if name in served), healths[name])
        for name in services
    }


def applications(connection: ServerConnection) -> dict[str, list[str]]:
    """Return the services of each application, without built-in ones; empty for a server without applications.

    Args:
        connection: The server.

    Raises:
        ServerError: The server is our ingress, or Ray Serve's, and does not list its applications.
    """
    from sdk._protos.reflection_client import ReflectionClient

    asked = dict(connection.metadata).get("application")
    others = tuple(pair for pair in connection.metadata if pair[0] != "application")
    return {
        name: [
            service
            for service in ReflectionClient(
                connection.channel, (*others, ("application", name)), target=connection.target
            ).services()
            if not is_built_in(service)
        ]
        for name in application_names(connection) or ()
        if asked in (None, name)
    }


def _health(connection: ServerConnection, service: str) -> str:
    check = connection.channel.unary_unary(
        f"/{_HEALTH}/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        answer = check(health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_S, metadata=connection.metadata)
    except grpc.RpcError as error:
        # It has no health service, or only the health of the whole server, "":
        # https://github.com/grpc/grpc/blob/master/doc/health-checking.md
        if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
            return ""
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def as_lines(
    services: Mapping[str, ServiceInfo], descriptors: Descriptors, problems: Mapping[str, str]
) -> Iterator[str]:
    """Yield services as lines of text.

    Args:
        services: The services.
        descriptors: Their descriptors.
        problems: The reason why a service has no descriptor.
    """
    for name, known in services.items():
        head = click.style(name, bold=True)
        if known.health:
            head += f"  {click.style(known.health, fg='green' if known.health == 'SERVING' else 'yellow')}"
        if known.applications:
            many = "s" if len(known.applications) > 1 else ""
            head += click.style(f"  application{many} {', '.join(known.applications)}", dim=True)
        yield from _comment(descriptors, name, "")
        yield head
        if name in problems:
            yield f"  {click.style(problems[name], fg='yellow')}"
        elif name in descriptors.services:
            for method in descriptors.services[name].methods:
                note = "  deprecated" if method.GetOptions().deprecated else ""
                yield from _comment(descriptors, method.full_name, "  ")
                yield f"  {_signature(method)}{note}"


def as_json(
    services: Mapping[str, ServiceInfo], descriptors: Descriptors, problems: Mapping[str, str]
) -> dict[str, Any]:
    """Return services as JSON; the reference of the command line documents it."""
    return {
        "services": [
            {
                "name": name,
                "applications": list(known.applications),
                "health": known.health or None,
                "problem": problems.get(name),
                "methods": [
                    {
                        "name": method.name,
                        "path": path_of(method.full_name),
                        "cardinality": cardinality_of(method).value,
                        "request": method.input_type.full_name,
                        "response": method.output_type.full_name,
                        "deprecated": bool(method.GetOptions().deprecated),
                        "comment": "\n".join(descriptors.comment(method.full_name)) or None,
                    }
                    for method in (descriptors.services[name].methods if name in descriptors.services else ())
                ],
            }
            for name, known in services.items()
        ]
    }


def _comment(descriptors: Descriptors, full_name: str, indent: str) -> Iterator[str]:
    for line in descriptors.comment(full_name):
        yield click.style(f"{indent}// {line}".rstrip(), dim=True)


def _type_name(message: Descriptor, method: MethodDescriptor) -> str:
    package = method.containing_service.file.package
    is_near = message.file.package == package and package
    return message.full_name.removeprefix(f"{package}.") if is_near else message.full_name


def _signature(method: MethodDescriptor) -> str:
    request = f"{'stream ' * method.client_streaming}{_type_name(method.input_type, method)}"
    response = f"{'stream ' * method.server_streaming}{_type_name(method.output_type, method)}"
    return f"{method.name}({request}) returns ({response})"
