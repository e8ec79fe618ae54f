"""Services of the proxy itself: Ray Serve's ``RayServeAPIService``, health, reflection, and calls without a route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from sdk._gen import serve_api_pb2 as api
from sdk._ingress.builtin import health, reflection
from sdk._ingress.builtin.handlers import Context, answer_request_id, last_value, unary
from sdk._ingress.builtin.health import HealthServicer
from sdk._ingress.builtin.reflection import ReflectionServicer

if TYPE_CHECKING:
    from sdk._xds.snapshot import Snapshot

SERVE_API = "ray.serve.RayServeAPIService"
_PING = f"Ping /{SERVE_API}/ListApplications for available applications."
SERVICES = frozenset({SERVE_API, health.SERVICE, *reflection.SERVICES})


class BuiltinServices:
    """All services of the proxy itself, and NOT_FOUND or UNIMPLEMENTED for every other call.

    Args:
        snapshot: Returns the routing table that Envoy serves.
        fetch_descriptors: Returns the serialized ``FileDescriptorSet`` of a digest; None if it is unknown.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], fetch_descriptors: Callable[[str], Awaitable[bytes | None]]
    ) -> None:
        self._snapshot = snapshot
        self._health = HealthServicer(snapshot, SERVICES)
        self._handlers = {
            f"/{SERVE_API}/ListApplications": unary(
                self._list_applications, api.ListApplicationsRequest, api.ListApplicationsResponse
            ),
            f"/{SERVE_API}/Healthz": unary(self._healthz, api.HealthzRequest, api.HealthzResponse),
            **self._health.handlers(),
            **ReflectionServicer(snapshot, fetch_descriptors, SERVICES).handlers(),
        }

    def generic_handler(self) -> grpc.GenericRpcHandler:
        """Return the handler for every call of a gRPC server."""
        return _Handlers(self._handlers, self._no_route)

    def notify(self) -> None:
        """Notify health watchers that the routing table has changed."""
        self._health.notify()

    def drain(self, is_draining: bool = True) -> None:
        """Report NOT_SERVING, so that load balancers stop sending calls to this proxy.

        Args:
            is_draining: False to report SERVING again.
        """
        if is_draining != self._health.is_draining:
            self._health.is_draining = is_draining
            self._health.notify()

    async def _list_applications(self, _: Any, context: Context) -> api.ListApplicationsResponse:
        answer_request_id(context)
        return api.ListApplicationsResponse(application_names=[a.name for a in self._snapshot().applications])

    async def _healthz(self, _: Any, context: Context) -> api.HealthzResponse:
        answer_request_id(context)
        if self._health.is_draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "This node is being drained.", context.trailing_metadata())
        return api.HealthzResponse(message="success")

    def _no_route(self, path: str) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
        async def no_route(_: AsyncIterator[bytes], context: Context) -> None:
            answer_request_id(context)
            application = last_value(context, "application")
            await context.abort(*no_route_status(self._snapshot(), path, application), context.trailing_metadata())

        return no_route


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handlers: dict[str, Any], no_route: Callable[[str], Any]) -> None:
        self._handlers = handlers
        self._no_route = no_route

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        path = str(details.method)
        return self._handlers.get(path) or grpc.stream_stream_rpc_method_handler(self._no_route(path))


def no_route_status(snapshot: Snapshot, path: str, application: str | None) -> tuple[grpc.StatusCode, str]:
    """Return status code and message for a call without a route.

    https://github.com/grpc/grpc/blob/master/doc/statuscodes.md

    Args:
        snapshot: The routing table.
        path: Path of the call, ``"/greet.Greeter/SayHello"``.
        application: Its ``application`` metadata; None or empty if absent.
    """
    service, _, method = path.lstrip("/").rpartition("/")
    if service in SERVICES:
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
