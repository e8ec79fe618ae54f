"""Services of the proxy itself: Ray Serve's ``RayServeAPIService``, health, reflection, and calls without a route."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from sdk._gen import serve_api_pb2 as api
from sdk._ingress.builtin import health, reflection
from sdk._ingress.builtin.bindings import OpenStreams, bind
from sdk._ingress.builtin.console import ConsoleData
from sdk._ingress.builtin.failed_applications import FailedApplications
from sdk._ingress.builtin.health import HealthServicer
from sdk._ingress.builtin.openapi import OpenApi
from sdk._ingress.builtin.reflection import ReflectionServicer
from sdk._otel import current
from sdk._pages.files import Pages
from sdk._replica_protocol import CONSOLE_PATH, PROXY_HEALTH_PATH, PROXY_LIVE_PATH, PROXY_READY_PATH
from sdk._web.protocols import serve_web
from sdk._wire.host import WireSettings
from sdk._wire.idle_reaper import max_connections
from sdk._wire.server import WireServer
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk._figures.figures import Reading
    from sdk._ingress.registry import ProxyState
    from sdk._wire.host import UnknownCall
    from sdk._xds.snapshot import Deployment, Snapshot
    from sdk.options import GrpcOptions

SERVE_API = "ray.serve.RayServeAPIService"
_PING = f"Ping /{SERVE_API}/ListApplications for available applications."
_DRAINING = "This node is being drained."
#: Details of calls before the first application, which a client may repeat; later they are NOT_FOUND.
_STARTING = "No application is ready yet: the ingress has started, and the first application has not."
SERVICES = frozenset({SERVE_API, health.SERVICE, *reflection.SERVICES})
# Requests to these services are short.
_MAX_REQUEST_BYTES = 4 << 20


async def _no_failed_applications() -> Collection[str]:
    return ()


async def _no_proxies() -> Sequence[ProxyState]:
    return ()


class BuiltinServices:
    """All services of the proxy itself, and a status for every call without a route.

    Args:
        snapshot: Returns the routing table that Envoy serves.
        fetch_descriptors: Returns the serialized ``FileDescriptorSet`` of a digest; None if it is unknown.
        fetch_failed: Returns the names of the applications that failed to deploy. Called for calls to an application
            that is not in the routing table.
        fetch_proxies: Returns the states of all proxies, for the console.
        read_metrics: Returns the metrics of all nodes, for the console; None where calls are not counted.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        fetch_descriptors: Callable[[str], Awaitable[bytes | None]],
        fetch_failed: Callable[[], Awaitable[Collection[str]]] = _no_failed_applications,
        fetch_proxies: Callable[[], Awaitable[Sequence[ProxyState]]] = _no_proxies,
        read_metrics: Callable[[], Reading] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._failed = FailedApplications(fetch_failed)
        # Each stream keeps a connection, and so a file descriptor.
        streams = OpenStreams(max_connections() // 2)
        self._health = HealthServicer(snapshot, SERVICES, streams)
        self._reflection = ReflectionServicer(snapshot, fetch_descriptors, SERVICES, streams)
        self._openapi = OpenApi(snapshot, fetch_descriptors)
        self._console = ConsoleData(snapshot, fetch_descriptors, fetch_proxies, read_metrics)
        self._pages = Pages()
        self._late_answers: set[asyncio.Task[None]] = set()

    def server(self, options: GrpcOptions) -> WireServer:
        """Return the server of these services and of all calls without a route. Call its `listen_at` method next.

        Args:
            options: Options of the ingress. It refuses what replicas refuse.
        """
        methods = [
            bind(
                f"/{SERVE_API}/ListApplications",
                self.list_applications,
                api.ListApplicationsRequest,
                api.ListApplicationsResponse,
            ),
            bind(f"/{SERVE_API}/Healthz", self.healthz, api.HealthzRequest, api.HealthzResponse),
            *self._openapi.bindings(),
            *self._health.bindings(),
            *self._reflection.bindings(),
        ]
        self._pages = Pages(*options.pages)
        methods += self._console.bindings() if CONSOLE_PATH in options.pages else []
        settings = WireSettings(
            max_ongoing_requests=max_connections(),
            max_receive_message_length=min(options.max_receive_message_length, _MAX_REQUEST_BYTES),
            max_metadata_bytes=options.max_metadata_bytes,
            error_details=options.error_details,
        )
        server = WireServer(methods, settings, answer_unknown=self._answer_no_route, answer_get=self._answer_get)
        tracing = current.refresh()
        if tracing is not None:
            from sdk._wire.traced_call import ServerSpans

            server.host.spans = ServerSpans(tracing, only_of_clients=True)
        serve_web(server)
        return server

    def notify(self) -> None:
        """Notify health watchers that the routing table has changed."""
        self._health.notify()

    @property
    def is_draining(self) -> bool:
        """True while the node is being drained."""
        return self._health.is_draining

    def drain(self, is_draining: bool = True) -> None:
        """Report NOT_SERVING, so that load balancers stop sending calls to this proxy.

        Args:
            is_draining: False to report SERVING again.
        """
        if is_draining != self._health.is_draining:
            self._health.is_draining = is_draining
            self._health.notify()

    async def list_applications(self, _: Any) -> api.ListApplicationsResponse:
        """Return the names of the applications.

        Raises:
            RpcError: UNAVAILABLE: the node is being drained.
        """
        self._check_draining()
        return api.ListApplicationsResponse(application_names=[a.name for a in self._snapshot().applications])

    async def healthz(self, _: Any) -> api.HealthzResponse:
        """Return "success".

        Raises:
            RpcError: UNAVAILABLE: the node is being drained.
        """
        self._check_draining()
        return api.HealthzResponse(message="success")

    def _check_draining(self) -> None:
        if self._health.is_draining:
            raise RpcError(grpc.StatusCode.UNAVAILABLE, _DRAINING)

    def _answer_get(self, path: bytes) -> bytes | None:
        """Return the response to a GET of a page or a probe; ``/-/healthz`` as Ray Serve's HTTP proxy answers it."""
        asked = path.partition(b"?")[0].decode("latin-1")
        if asked not in (PROXY_HEALTH_PATH, PROXY_LIVE_PATH, PROXY_READY_PATH):
            return self._pages.answer(asked)
        problem = ""
        if asked != PROXY_LIVE_PATH and self._health.is_draining:
            problem = _DRAINING
        elif asked == PROXY_READY_PATH and not self._health.has_started:
            problem = _STARTING
        status, text = ("503 Service Unavailable", problem) if problem else ("200 OK", "success")
        return f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()

    def _answer_no_route(self, call: UnknownCall) -> None:
        application = call.header(b"application")
        code, details = no_route_status(self._snapshot(), call.path.decode("latin-1"), application)
        if code is grpc.StatusCode.NOT_FOUND:
            task = asyncio.get_running_loop().create_task(self._answer_not_found(call, application, details))
            self._late_answers.add(task)
            task.add_done_callback(self._late_answers.discard)
        else:
            call.finish_with(code.value[0], details)

    async def _answer_not_found(self, call: UnknownCall, application: str | None, details: str) -> None:
        failed = await self._failed.names()
        known = {known.name for known in self._snapshot().applications}
        if not application and not known and len(failed) == 1:
            (application,) = failed
        if application in failed and application not in known:
            details = f"Application {application!r} failed to deploy."
            call.finish_with(grpc.StatusCode.UNAVAILABLE.value[0], details)
        elif not self._health.has_started:
            call.finish_with(grpc.StatusCode.UNAVAILABLE.value[0], _STARTING)
        else:
            call.finish_with(grpc.StatusCode.NOT_FOUND.value[0], details)


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
    if not application and len(names) > 1:
        asked = f"service {service!r}"
        serving = [a.name for a in snapshot.applications if any(service in d.services for d in a.deployments)]
        if not serving:
            asked = f"path {path.partition('?')[0]!r}"
            serving = [a.name for a in snapshot.applications if any(_has_route(d, path) for d in a.deployments)]
        if not serving:
            return grpc.StatusCode.UNIMPLEMENTED, f"No application serves {service!r}."
        if snapshot.route_by_service:
            return (
                grpc.StatusCode.NOT_FOUND,
                f"Application metadata not set, and {asked} is served by {', '.join(serving)}. {_PING}",
            )
    if not application and len(names) != 1:
        return grpc.StatusCode.NOT_FOUND, f"Application metadata not set. {_PING}"
    name = application or names[0]
    return grpc.StatusCode.UNIMPLEMENTED, f"Application {name!r} has no method {method!r} of service {service!r}."


def _has_route(deployment: Deployment, path: str) -> bool:
    """Return whether a path begins as a route of ``google.api.http`` does."""
    return path.startswith(tuple(route.prefix for route in deployment.http_routes))
