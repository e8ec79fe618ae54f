"""``grpc.health.v1.Health`` for the whole ingress.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from sdk._gen import health_pb2 as pb
from sdk._ingress.builtin.bindings import bind
from sdk.errors import RpcError
from sdk.service import Cardinality

if TYPE_CHECKING:
    from sdk._ingress.builtin.bindings import OpenStreams
    from sdk._xds.snapshot import Snapshot
    from sdk.context import ServicerContext
    from sdk.service import MethodBinding

    ServingStatus: TypeAlias = pb.HealthCheckResponse.ServingStatus.ValueType

SERVICE = "grpc.health.v1.Health"
#: Names that probes give for the service: whether the proxy answers; whether it also takes calls.
LIVE, READY = "live", "ready"
_SERVING, _NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


class HealthServicer:
    """Serves Check, List and Watch from the routing table.

    Args:
        snapshot: Returns the routing table that Envoy serves.
        built_in: Full names of the services that the proxy answers itself.
        streams: The open streams.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], built_in: frozenset[str], streams: OpenStreams) -> None:
        self._snapshot = snapshot
        self._built_in = built_in
        self._streams = streams
        self._changed = asyncio.Event()
        self._has_started = False
        self.is_draining = False

    @property
    def has_started(self) -> bool:
        """True once the routing table has had an application."""
        self._has_started = self._has_started or bool(self._snapshot().applications)
        return self._has_started

    def notify(self) -> None:
        """Notify watchers that the routing table has changed, or that the proxy is draining."""
        self._has_started = self.has_started
        self._changed.set()
        self._changed = asyncio.Event()

    def bindings(self) -> list[MethodBinding]:
        """Return the methods of the service."""
        request, response = pb.HealthCheckRequest, pb.HealthCheckResponse
        return [
            bind(f"/{SERVICE}/Check", self.check, request, response),
            bind(f"/{SERVICE}/Watch", self.watch, request, response, Cardinality.UNARY_STREAM),
            bind(f"/{SERVICE}/List", self.list_statuses, pb.HealthListRequest, pb.HealthListResponse),
        ]

    def _status(self, service: str, application: str | None) -> ServingStatus | None:
        if service == LIVE:
            return _SERVING
        if self.is_draining:
            return _NOT_SERVING
        if service == READY:
            return _SERVING if self.has_started else _NOT_SERVING
        if not service or service in self._built_in:
            return _SERVING
        return status_of(self._snapshot(), service, application)

    async def check(self, request: Any, grpc_context: ServicerContext) -> Any:
        """Return the status of a service.

        Raises:
            RpcError: NOT_FOUND: no application serves it.
        """
        status = self._status(request.service, grpc_context.application())
        if status is None:
            raise RpcError(grpc.StatusCode.NOT_FOUND, f"No application serves {request.service!r}.")
        return pb.HealthCheckResponse(status=status)

    async def list_statuses(self, _: Any, grpc_context: ServicerContext) -> Any:
        """Return the status of every service."""
        own = dict.fromkeys(("", *self._built_in), _SERVING)
        statuses = {**statuses_of(self._snapshot(), grpc_context.application()), **own}
        if self.is_draining:
            statuses = dict.fromkeys(statuses, _NOT_SERVING)
        return pb.HealthListResponse(
            statuses={service: pb.HealthCheckResponse(status=status) for service, status in statuses.items()}
        )

    async def watch(self, request: Any, grpc_context: ServicerContext) -> AsyncIterator[Any]:
        """Yield the status of a service, now and after each change."""
        application, sent = grpc_context.application(), None
        with self._streams.place():
            while True:
                changed = self._changed
                status = self._status(request.service, application)
                if status is None:
                    status = pb.HealthCheckResponse.SERVICE_UNKNOWN  # as the protocol says: it may be added later
                if status != sent:
                    sent = status
                    yield pb.HealthCheckResponse(status=status)
                await changed.wait()


def status_of(snapshot: Snapshot, service: str, application: str | None = None) -> ServingStatus | None:
    """Return the ``ServingStatus`` of a service: SERVING if it has a replica, or starts one for a call.

    Args:
        snapshot: The routing table.
        service: Full name of the service.
        application: The only application to look at; None or empty for all.

    Returns:
        The status; None if no application serves the service.
    """
    return statuses_of(snapshot, application).get(service)


def statuses_of(snapshot: Snapshot, application: str | None = None) -> dict[str, ServingStatus]:
    """Return the ``ServingStatus`` of every service, by its full name.

    Args:
        snapshot: The routing table.
        application: The only application to look at; None or empty for all.
    """
    statuses: dict[str, ServingStatus] = {}
    for known in snapshot.applications:
        if application and known.name != application:
            continue
        for deployment in known.deployments:
            is_serving = bool(deployment.endpoints) or (deployment.scales_to_zero and deployment.holds_calls)
            for service in deployment.services:
                if is_serving:
                    statuses[service] = _SERVING
                else:
                    statuses.setdefault(service, _NOT_SERVING)
    return statuses
