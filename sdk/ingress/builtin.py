"""What the proxy answers itself: Ray Serve's ``RayServeAPIService``, and every call that has no route."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from sdk.gen import serve_api_pb2 as api

if TYPE_CHECKING:
    from sdk.xds.snapshot import Snapshot

SERVE_API = "ray.serve.RayServeAPIService"
_PING = f"Ping /{SERVE_API}/ListApplications for available applications."

Context = grpc.aio.ServicerContext[Any, Any]


class Fallback(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Answers the built-in services, and NOT_FOUND or UNIMPLEMENTED to everything else.

    Args:
        snapshot: Returns the routing table that Envoy serves.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a path; there is one for each path."""
        path = str(details.method)
        if path == f"/{SERVE_API}/ListApplications":
            return _unary(self._list_applications, api.ListApplicationsRequest, api.ListApplicationsResponse)
        if path == f"/{SERVE_API}/Healthz":
            return _unary(self._healthz, api.HealthzRequest, api.HealthzResponse)
        return grpc.stream_stream_rpc_method_handler(self._refuse(path))

    async def _list_applications(self, _: Any, context: Context) -> api.ListApplicationsResponse:
        _send_request_id(context)
        return api.ListApplicationsResponse(application_names=[a.name for a in self._snapshot().applications])

    async def _healthz(self, _: Any, context: Context) -> api.HealthzResponse:
        _send_request_id(context)
        return api.HealthzResponse(message="success")

    def _refuse(self, path: str) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            _send_request_id(context)
            application = _last(context, "application")
            await context.abort(*refusal(self._snapshot(), path, application), context.trailing_metadata())

        return refuse


def refusal(snapshot: Snapshot, path: str, application: str | None) -> tuple[grpc.StatusCode, str]:
    """Return the status for a call that has no route.

    Args:
        snapshot: The routing table.
        path: The call's path, ``"/greet.Greeter/SayHello"``.
        application: Its ``application`` metadata; None or empty when there is none.
    """
    service, _, method = path.lstrip("/").rpartition("/")
    if service == SERVE_API:
        return grpc.StatusCode.UNIMPLEMENTED, f"Service {service!r} has no method {method!r}."
    names = [known.name for known in snapshot.applications]
    if application and application not in names:
        return grpc.StatusCode.NOT_FOUND, f"Application {application!r} not found. {_PING}"
    if not application and snapshot.route_by_service and len(names) > 1:
        serving = [a.name for a in snapshot.applications if any(service in d.services for d in a.deployments)]
        if len(serving) > 1:
            return (
                grpc.StatusCode.NOT_FOUND,
                f"Application metadata not set, and service {service!r} is served by {', '.join(serving)}. {_PING}",
            )
        return grpc.StatusCode.UNIMPLEMENTED, f"No application serves {service!r}."
    if not application and len(names) != 1:
        return grpc.StatusCode.NOT_FOUND, f"Application metadata not set. {_PING}"
    name = application or names[0]
    return grpc.StatusCode.UNIMPLEMENTED, f"Application {name!r} has no method {method!r} of service {service!r}."


def _unary(handler: Any, request: Any, response: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        handler, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )


def _send_request_id(context: Context) -> None:
    request_id = _last(context, "request_id") or _last(context, "x-request-id") or str(uuid.uuid4())
    context.set_trailing_metadata((("request_id", request_id),))


def _last(context: Context, key: str) -> str | None:
    values = [value for name, value in context.invocation_metadata() or () if name == key]
    return str(values[-1]) if values else None
