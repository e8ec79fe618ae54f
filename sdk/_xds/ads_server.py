"""The ADS server: sends resources to Envoy over a unix socket, in an order that breaks no call.

"Make before break": https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from itertools import compress
from operator import is_not
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from sdk._gen import envoy_pb2 as pb
from sdk._guard.private_socket import private_socket
from sdk._xds.packing import CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, pack_resource
from sdk._xds.resources import Resources, check_resources
from sdk._xds.subscription import Response, Subscription, VersionedResources
from sdk.errors import IngressError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from sdk._xds.packing import Resource

__all__ = ["AdsServer", "ResourcesRejected"]

_log = logging.getLogger(__name__)
_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
_MAX_SOCKET_PATH = 107  # sockaddr_un has 108 bytes, one of them for the terminating NUL


class ResourcesRejected(IngressError):
    """Envoy rejected resources (NACK) and keeps its previous ones.

    Attributes:
        type_url: The rejected resource type.
        reason: Envoy's error message.
    """

    def __init__(self, type_url: str, reason: str) -> None:
        self.type_url, self.reason = type_url, reason
        super().__init__(f"Envoy rejected {type_url.rpartition('.')[2]}: {reason}")

    def __reduce__(self) -> tuple[type[ResourcesRejected], tuple[str, str]]:
        return type(self), (self.type_url, self.reason)


class _Stream:
    """ADS stream of one connected Envoy."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox: asyncio.Queue[Response | None] = asyncio.Queue()

    def send_due(self, type_url: str, resources: Mapping[str, VersionedResources]) -> None:
        subscription = self.subscriptions.get(type_url)
        if subscription is None or (response := subscription.next_response(resources.get(type_url))) is None:
            return
        self.outbox.put_nowait(response)
        if type_url == CLUSTER_TYPE and response.replaces and ENDPOINT_TYPE in self.subscriptions:
            # A cluster that changes waits for its endpoints, which Envoy is subscribed to, and does not ask for again.
            self.subscriptions[ENDPOINT_TYPE].send_again()
            self.send_due(ENDPOINT_TYPE, resources)

    def has_names(self, type_url: str) -> bool:
        """Return whether Envoy is subscribed to resources of a type: without its listener it unsubscribes."""
        subscription = self.subscriptions.get(type_url)
        return subscription is not None and bool(subscription.names)


class AdsServer:
    """Serves Envoy's resources on a unix socket. Sends no response before the first ``publish``.

    Use it in one event loop.

    Args:
        socket_path: Path of the unix socket, at most 107 bytes, in a folder that only this user can enter.
        on_log: Called with each call that Envoy has answered itself, if the listener logs these.

    Example:
        server = AdsServer("/tmp/p1/ads.sock")
        await server.start()
        await asyncio.wait_for(server.publish(build_resources(snapshot, config)), timeout=5)
    """

    def __init__(
        self, socket_path: str, on_log: Callable[[pb.HTTPAccessLogEntry], object] = lambda entry: None
    ) -> None:
        self._socket_path = socket_path
        self._on_log = on_log
        self._server: grpc.aio.Server | None = None
        self._publisher: asyncio.Task[None] | None = None
        self._streams: set[_Stream] = set()
        self._resources: dict[str, VersionedResources] = {}
        # Resources that every Envoy acknowledged last: restored after a NACK, and their clusters may still be in use.
        self._acked: dict[str, Mapping[str, Resource]] = {}
        self._pending: Resources | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()

    @property
    def connections(self) -> int:
        """Number of connected Envoys: one, or two for a moment while one replaces the other."""
        return len(self._streams)

    async def start(self) -> None:
        """Start listening.

        Raises:
            IngressError: The server can't listen on the socket.
        """
        if len(os.fsencode(self._socket_path)) > _MAX_SOCKET_PATH:
            raise IngressError(
                f"the path of a unix socket has at most {_MAX_SOCKET_PATH} bytes; choose a shorter one than "
                f"{self._socket_path!r}"
            )
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        method = grpc.stream_stream_rpc_method_handler(
            self._serve_stream,
            request_deserializer=pb.DeltaDiscoveryRequest.FromString,
            response_serializer=Response.encode,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"DeltaAggregatedResources": method}),)
        )
        log = grpc.stream_unary_rpc_method_handler(
            self._take_log,
            request_deserializer=pb.StreamAccessLogsMessage.FromString,
            response_serializer=pb.StreamAccessLogsResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_LOG_SERVICE, {"StreamAccessLogs": log}),)
        )
        try:
            with private_socket(self._socket_path) as path:
                server.add_insecure_port(f"unix:{path}")
        except (RuntimeError, OSError) as error:
            raise IngressError(f"can't listen on {self._socket_path!r}: {error}") from error
        await server.start()
        self._server = server
        self._publisher = asyncio.create_task(self._publish_forever(), name="ads-publisher")

    async def stop(self) -> None:
        """Close every stream. Envoy keeps its configuration. Pending ``publish`` calls raise ``IngressError``."""
        if self._publisher is not None:
            self._publisher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._publisher
        if self._server is not None:
            await self._server.stop(None)
        _resolve(self._waiters, IngressError("the ADS server was stopped"))
        self._waiters = []

    async def publish(self, resources: Resources) -> None:
        """Publish resources, and return when every connected Envoy has acknowledged all of them.

        Waits for an Envoy if none is connected. It has no timeout: wrap it in one; the resources stay published if the
        caller gives up. Calls run one after another. A call that waits for its turn is superseded by a newer call and
        returns with it.

        Raises:
            ResourcesRejected: Envoy rejected them and keeps its previous ones. They are no longer published.
            IngressError: They are inconsistent (see ``check_resources``), or the server was stopped.
        """
        if self._publisher is None or self._publisher.done():
            raise IngressError("the ADS server is not running")
        if not resources.is_checked:
            check_resources(resources)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(done)
        self._pending = resources
        self._wake.set()
        await done

    def disconnect(self) -> None:
        """Close every stream, because their Envoys are dead. Saves waiting until gRPC notices it."""
        for stream in self._streams:
            stream.outbox.put_nowait(None)
        self._streams.clear()
        self._wake.set()

    async def wait_acked(self) -> None:
        """Return when an Envoy is connected and every connected one has acknowledged all resources."""
        types = (CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE)
        await self._wait_until(
            lambda: bool(self._streams) and self._resources.keys() >= set(types) and self._is_acked(types),
        )

    # -- publishing: one task, so that a caller that gives up leaves no half-published state

    async def _publish_forever(self) -> None:
        waiting: list[asyncio.Future[None]] = []
        try:
            while True:
                await self._wait_until(lambda: self._pending is not None)
                resources, self._pending = self._pending, None
                waiting, self._waiters = waiting + self._waiters, []
                assert resources is not None
                try:
                    complete = await self._push(resources)
                except ResourcesRejected as error:
                    _resolve(waiting, error)
                except Exception as error:
                    _log.exception("publishing failed")
                    _resolve(waiting, IngressError(f"publishing failed: {error!r}"))
                else:
                    if not complete:
                        continue
                    _resolve(waiting, None)
                waiting = []
        finally:
            _resolve(waiting, IngressError("the ADS server was stopped"))

    async def _push(self, resources: Resources) -> bool:
        """Return whether Envoy has all resources; ``False`` if newer ones superseded them before an Envoy connected."""
        for stream in self._streams:
            for subscription in stream.subscriptions.values():
                subscription.retry()
        new = resources.by_type
        # Envoy acknowledges a new cluster only when it has its endpoints: waiting for the CDS ACK before sending EDS
        # would deadlock. Removed clusters stay until no route points to them, and so do the last endpoints of a
        # cluster, until its calls wait at the gate.
        self._set_resources(CLUSTER_TYPE, _union(self._acked.get(CLUSTER_TYPE, {}), new[CLUSTER_TYPE]))
        acked = self._acked.get(ENDPOINT_TYPE, {})
        kept = _last_endpoints(acked, new[ENDPOINT_TYPE])
        self._set_resources(
            ENDPOINT_TYPE, {**_union(acked, new[ENDPOINT_TYPE]), **kept} if kept else _union(acked, new[ENDPOINT_TYPE])
        )
        await self._wait_acked(CLUSTER_TYPE, ENDPOINT_TYPE)
        # Filters before the routes that enable them: else calls would pass without them. Envoy subscribes to them when
        # it has the listener.
        self._set_resources(FILTER_TYPE, new[FILTER_TYPE])
        await self._wait_acked(FILTER_TYPE, subscribed_only=True)
        self._set_resources(LISTENER_TYPE, new[LISTENER_TYPE])
        await self._wait_acked(LISTENER_TYPE, FILTER_TYPE)
        self._set_resources(ROUTE_TYPE, new[ROUTE_TYPE])
        await self._wait_acked(ROUTE_TYPE)
        self._set_resources(CLUSTER_TYPE, new[CLUSTER_TYPE])
        self._set_resources(ENDPOINT_TYPE, new[ENDPOINT_TYPE])
        while True:
            await self._wait_until(lambda: bool(self._streams) or self._pending is not None)
            if not self._streams:
                return False
            if await self._wait_acked(CLUSTER_TYPE, ENDPOINT_TYPE, FILTER_TYPE, LISTENER_TYPE, ROUTE_TYPE):
                return True

    def _set_resources(self, type_url: str, resources: Mapping[str, Resource]) -> None:
        current = self._resources.get(type_url)
        if current is None or (current.resources is not resources and current.resources != resources):
            self._resources[type_url] = VersionedResources(current.version + 1 if current else 1, resources)
        for stream in self._streams:
            stream.send_due(type_url, self._resources)

    async def _wait_acked(self, *type_urls: str, subscribed_only: bool = False) -> bool:
        """Wait until every Envoy has acknowledged these types. Return ``False`` if no Envoy is connected (any more).

        Args:
            *type_urls: The types.
            subscribed_only: True to pass over each Envoy as long as it is subscribed to none of the resources. It may
                unsubscribe while this waits, for example from filters when it has rejected their listener.
        """
        await self._wait_until(
            lambda: (
                not self._streams
                or self._rejection(type_urls) is not None
                or self._is_acked(type_urls, subscribed_only=subscribed_only)
            )
        )
        if not self._streams:
            return False
        if (rejection := self._rejection(type_urls)) is not None:
            # Envoy keeps its previous resources. An Envoy that connects now must not get rejected ones.
            if (acked := self._acked.get(rejection.type_url)) is not None:
                self._set_resources(rejection.type_url, acked)
            else:
                self._resources.pop(rejection.type_url, None)
            raise rejection
        self._acked.update((type_url, self._resources[type_url].resources) for type_url in type_urls)
        return True

    def _is_acked(self, type_urls: Iterable[str], *, subscribed_only: bool = False) -> bool:
        for type_url in type_urls:
            current = self._resources[type_url]
            for stream in self._streams:
                subscription = stream.subscriptions.get(type_url)
                if subscribed_only and not stream.has_names(type_url):
                    continue
                if subscription is None:
                    # Envoy subscribes to endpoints only when it has an EDS cluster.
                    if current.resources or type_url != ENDPOINT_TYPE:
                        return False
                elif not subscription.is_acked(current):
                    return False
        return True

    def _rejection(self, type_urls: Iterable[str]) -> ResourcesRejected | None:
        for stream in self._streams:
            for type_url in type_urls:
                subscription = stream.subscriptions.get(type_url)
                if subscription is not None and subscription.rejection is not None:
                    return ResourcesRejected(type_url, subscription.rejection)
        return None

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._wake.clear()
            await self._wake.wait()

    # -- streams

    async def _take_log(
        self, messages: AsyncIterator[pb.StreamAccessLogsMessage], context: Any
    ) -> pb.StreamAccessLogsResponse:
        async for message in messages:
            for entry in message.http_logs.log_entry:
                self._on_log(entry)
        return pb.StreamAccessLogsResponse()

    async def _serve_stream(self, requests: AsyncIterator[pb.DeltaDiscoveryRequest], context: Any) -> None:
        stream = _Stream()
        self._streams.add(stream)
        reader = asyncio.create_task(self._read(stream, requests))
        try:
            while (response := await stream.outbox.get()) is not None:
                await context.write(response)
        finally:
            reader.cancel()
            self._streams.discard(stream)
            # Wake the callers that wait for this Envoy's ACK.
            self._wake.set()
            _log.info("Envoy disconnected")

    async def _read(self, stream: _Stream, requests: AsyncIterator[pb.DeltaDiscoveryRequest]) -> None:
        try:
            async for request in requests:
                self._receive(stream, request)
        except Exception:
            _log.exception("reading from Envoy failed")
        finally:
            stream.outbox.put_nowait(None)

    def _receive(self, stream: _Stream, request: pb.DeltaDiscoveryRequest) -> None:
        if request.HasField("node") and not stream.subscriptions:
            _log.info("Envoy %s connected", request.node.id)
        type_url = request.type_url
        subscription = stream.subscriptions.setdefault(type_url, Subscription(type_url))
        subscription.receive(request)
        if request.HasField("error_detail"):
            # Info only: publish raises, and its caller knows whether the error is new.
            _log.info("Envoy rejected %s: %s", type_url, request.error_detail.message)
        stream.send_due(type_url, self._resources)
        self._wake.set()


def _union(acked: Mapping[str, Resource], new: Mapping[str, Resource]) -> Mapping[str, Resource]:
    """Return the new resources, and those that Envoy has in addition; the new ones themselves if it has no others."""
    return new if acked.keys() <= new.keys() else {**acked, **new}


def _last_endpoints(acked: Mapping[str, Resource], new: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return Envoy's current endpoints of clusters that are about to have none."""
    if acked is new:
        return {}
    changed = compress(new, map(is_not, map(acked.get, new), new.values()))  # in C: there may be thousands
    return {
        name: acked[name]
        for name in changed
        if name in acked
        and new[name] == pack_resource(pb.ClusterLoadAssignment(cluster_name=name))
        and acked[name] != new[name]
    }


def _resolve(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for future in waiting:
        if future.done():  # its caller gave up
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
