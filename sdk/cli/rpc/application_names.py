"""The applications that a server names, by Ray Serve's ``RayServeAPIService``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from sdk._gen import serve_api_pb2
from sdk.errors import ServerError

if TYPE_CHECKING:
    from sdk.cli.rpc.connection import ServerConnection

_LIST = "/ray.serve.RayServeAPIService/ListApplications"
_TIMEOUT_S = 5.0


def application_names(connection: ServerConnection) -> list[str] | None:
    """Return the names of the applications of a server; None for a server without applications.

    Args:
        connection: The server.

    Raises:
        ServerError: The server is our ingress, or Ray Serve's, and does not list its applications.
    """
    ask = connection.channel.unary_unary(
        _LIST,
        request_serializer=serve_api_pb2.ListApplicationsRequest.SerializeToString,
        response_deserializer=serve_api_pb2.ListApplicationsResponse.FromString,
    )
    try:
        request = serve_api_pb2.ListApplicationsRequest()
        return list(ask(request, timeout=_TIMEOUT_S, metadata=connection.metadata).application_names)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
            return None
        raise ServerError(
            f"The server at {connection.target} does not list its applications: {error.code().name}: {error.details()}"
        ) from None


def describe_lack(connection: ServerConnection) -> str:
    """Return the reason why a server has only built-in services.

    Args:
        connection: The server, with the ``application`` metadata of the command line.

    Raises:
        ServerError: As :func:`application_names`.
    """
    names, asked = application_names(connection), dict(connection.metadata).get("application")
    if names is None:
        return "it serves nothing"
    if not names:
        return "no application is ready yet; `sdk status` shows those that start or have failed"
    if asked is None or asked in names:
        return "its applications have no gRPC service"
    return f"it has no application {str(asked)!r}; it has {', '.join(names)}"
