"""A Ray Serve replica: the user's class, its wire server, and its registration with the ingress.

It uses only Ray Serve's public hooks: ``async __init__``, ``check_health``, ``record_autoscaling_stats`` and
``__del__``. The replica registers at its first health check, not in its constructor: Ray Serve calls ``reconfigure``
between the two (https://docs.ray.io/en/latest/serve/production-guide/fault-tolerance.html).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray import serve

from sdk._channel import compression
from sdk._contract.interceptors import make_interceptors
from sdk._guard.between_nodes import own_between_nodes
from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._ingress.cluster import HEARTBEAT_S, find_controller
from sdk._ingress.env_options import from_environment
from sdk._ingress.node_leases import NodeHeartbeat
from sdk._ingress.registry import Lease, Replica
from sdk._serve.autoscaling import ONGOING_CALLS, max_waiting, scales_to_zero
from sdk._serve.autoscaling_metrics import report_calls, uses_default_policy
from sdk._serve.call_metrics import CallMetrics
from sdk._serve.checked_methods import checked_methods
from sdk._serve.deployed_classes import SERVED_SERVICES
from sdk._serve.hooks import call_hook, finish_hook
from sdk._serve.ingress_bootstrap import find_or_create_ingress
from sdk._serve.internals import (
    add_to_processing_queries,
    cancel_child_requests,
    deployment_config,
    request_context_setter,
)
from sdk._serve.process_end import LoopWatch, end_after_answer
from sdk._serve.ray_handles import SERVER
from sdk._serve.replica_logs import ReplicaLogs
from sdk._serve.replica_telemetry import LATENCY_BOUNDS_MS, ReplicaTelemetry
from sdk._serve.translation import translate
from sdk._web.http_rules import http_routes
from sdk._web.protocols import serve_web
from sdk._wire.call_counts import CallCounts
from sdk._wire.crash_trailers import CrashTrailers
from sdk._wire.host import WireSettings
from sdk._wire.malloc import keep_freed_memory
from sdk._wire.server import WireServer
from sdk._xds.snapshot import Endpoint
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._contract.definition import Definition

logger = logging.getLogger("ray.serve")

# Seconds that a new replica waits until every proxy routes to it, and a leaving one until none does.
_ACKNOWLEDGE_S = 10.0
# A leaving replica accepts calls until none has arrived for this many seconds: some may be under way already.
_QUIET_S = 0.1
_MIN_QUIET_S = 0.25
# Seconds to wait for Envoy to close its idle connections. Each of its threads does so when it removes the replica; on a
# busy machine that is long after the acknowledgement.
_IDLE_CLOSE_S = 3.0
# Seconds until the replica retries a controller that did not answer.
_RETRY_S = 0.2
# Seconds at the end of the grace period that are reserved for the last answers, before Ray Serve kills the process.
_MARGIN_S = 1.0
# Seconds of that margin in which clients of unfinished calls read their status and close.
_LINGER_S = 0.5


class ReplicaHost:
    """Serves one instance of a decorated class.

    Args:
        implementation: The instance.
        handlers: The instance as the user's class has it: without the checks around its methods.
        definition: The definition of its class.
        logs: The replica's logs.
        is_exposed: False if clients can't call it, only other deployments.
    """

    def __init__(
        self, implementation: Any, handlers: Any, definition: Definition, logs: ReplicaLogs, *, is_exposed: bool = True
    ) -> None:
        context = serve.get_replica_context()
        self._options = GrpcOptions()
        self._wanted = from_environment(os.environ)  # an invalid option makes the replica fail to start
        self._services = tuple(service.full_name for service in definition.services)
        self._streams = any(
            method.cardinality.server_streaming for service in definition.services for method in service.methods
        )
        self._idempotent = definition.idempotent_paths
        self._http_routes = http_routes(definition.services)
        self._digest, self._descriptors = serialize_descriptors(definition.services)
        self._application, self._deployment = context.app_name, context.deployment
        self._replica_id = context.replica_id.to_full_id_str()
        self._is_exposed = is_exposed
        self._controller: Any = None
        self._node_heartbeat: NodeHeartbeat | None = None
        self._replica: Replica | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._reports: asyncio.Task[None] | None = None
        self._exports: asyncio.Task[None] | None = None
        self._leaving = False
        self._was_registered = False
        self._is_public = False
        self._ingress_unavailable = False
        self._logged_differences = ""
        self._logs = logs
        interceptors = make_interceptors(definition.cls_name, definition.interceptors)
        self._server = WireServer(
            definition.bindings(handlers),
            self._settings(),
            on_start=request_context_setter(self._application),
            on_cancel=cancel_child_requests,
            on_exit=end_after_answer,
            translate_error=translate,
            application=self._application,
            compression=definition.compression,
            interceptors=interceptors,
            guard=own_between_nodes(),
            latency_bounds_ms=LATENCY_BOUNDS_MS,
        )
        self._server.host.waits = CallCounts(LATENCY_BOUNDS_MS)
        serve_web(self._server)
        self._metrics = CallMetrics(
            self._server,
            application=self._application,
            deployment=self._deployment,
            replica=context.replica_id.unique_id,
            bounds_ms=LATENCY_BOUNDS_MS,
        )
        add_to_processing_queries(lambda: self._server.host.ongoing)
        logs.follow_configuration(self._server)
        self._telemetry = ReplicaTelemetry(self._server, self._metrics, context, interceptors)
        setattr(implementation, SERVER, self._server)  # for calls without an ingress

    async def start(self) -> None:
        """Start the wire server; nothing is routed to it yet."""
        keep_freed_memory()
        self._telemetry.start()
        loop = asyncio.get_running_loop()
        self._loop_watch = LoopWatch(loop)
        self._loop_watch.start()
        if self._streams:
            self._server.host.crash_trailers = await asyncio.to_thread(CrashTrailers.start, loop)
        node_id, host = _node()
        port = await self._server.listen("127.0.0.1")
        socket = await self._server.listen_locally()
        self._replica = Replica(
            self._application,
            self._deployment,
            self._services,
            Endpoint(self._replica_id, host, port, node_id, socket),
            self._digest,
            self._idempotent,
            max_waiting=max_waiting(deployment_config()),
            scales_to_zero=scales_to_zero(deployment_config()),
            is_exposed=self._is_exposed,
            http_routes=self._http_routes,
        )
        self._node_heartbeat = NodeHeartbeat(node_id, self._replica_id)
        self._follow_policy()
        self._exports = loop.create_task(self._metrics.export_forever())

    async def ensure_registered(self) -> None:
        """Register with the ingress on the first call; a task then renews the lease.

        Raises:
            RuntimeError: The replica has left the ingress, and so fails its health check: after a restart, Ray Serve's
                controller may otherwise keep a replica that it was shutting down.
        """
        if self._leaving:
            raise RuntimeError(f"{self._replica_id} has left the ingress and can't register again")
        if self._heartbeat is None:
            await self._register()
            self._heartbeat = asyncio.get_running_loop().create_task(self._keep_lease())

    @property
    def ongoing_calls(self) -> int:
        """Number of running and queued calls."""
        return self._server.count_calls()

    async def stop(self) -> None:
        """Leave without losing a call: deregister, wait until no proxy routes to this replica, and drain."""
        self._leaving = True
        began = time.monotonic()
        tasks = [task for task in (self._heartbeat, self._reports) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._node_heartbeat is not None:
            self._node_heartbeat.close()
        config = deployment_config()
        if self._was_registered:
            timeout_s = min(_ACKNOWLEDGE_S, config.graceful_shutdown_timeout_s / 2)
            if not await self._deregister(began + timeout_s):
                logger.warning("not every proxy has stopped routing to %s", self._replica_id)
        # Ray Serve spends one wait loop of the grace period before it calls this.
        spent = time.monotonic() - began + config.graceful_shutdown_wait_loop_s + _MARGIN_S
        await asyncio.sleep(_MIN_QUIET_S)
        grace_s = max(0.0, config.graceful_shutdown_timeout_s - spent)
        await self._server.drain(quiet_s=_QUIET_S, grace_s=grace_s, idle_close_s=_IDLE_CLOSE_S, linger_s=_LINGER_S)
        if self._exports is not None:
            self._exports.cancel()
        self._metrics.export()
        await self._telemetry.stop()
        self._logs.flush()
        self._loop_watch.stop()
        if self._server.host.crash_trailers is not None:
            self._server.host.crash_trailers.close()

    # -- internal ---------------------------------------------------------------------------

    def _settings(self) -> WireSettings:
        return wire_settings(deployment_config(), self._options, self._application)

    async def _register(self) -> None:
        # The reason why it is missing lasts as long as Ray Serve runs. Calls between deployments alone start none.
        if self._ingress_unavailable or not self._is_exposed:
            self._controller = await asyncio.to_thread(find_controller)
        else:
            found = await asyncio.to_thread(find_or_create_ingress, self._wanted)
            self._controller, self._ingress_unavailable = found.controller, found.controller is None
            if found.problem:
                logger.error("%s: %s", self._replica_id, found.problem)
            if found.opened:  # by `serve run`, for example, which does not mention it
                logger.info("the gRPC ingress listens on %s of each node", found.opened)
        if self._controller is None:
            return
        self._ingress_unavailable = False
        is_registered = False
        while not is_registered:  # the options may change in between
            await self._apply_lease(await self._controller.lease.remote())
            self._was_registered = True
            is_registered = await self._controller.register.remote(
                self._replica, self._descriptors, _ACKNOWLEDGE_S, self._options
            )

    async def _deregister(self, deadline: float) -> bool:
        """Leave the registry, and retry while the controller restarts. Return True if no proxy routes here any more."""
        while (timeout_s := deadline - time.monotonic()) > 0:
            try:
                controller = await asyncio.to_thread(find_controller)
                if controller is None:
                    return True  # without an ingress no proxy routes here
                left: bool = await controller.deregister.remote(self._replica_id, timeout_s)
                return left
            except ray.exceptions.RayError as error:  # each attempt may fail
                logger.warning("%s could not deregister from the ingress: %s", self._replica_id, error)
                await asyncio.sleep(_RETRY_S)
        return False

    async def _apply_lease(self, lease: Lease) -> None:
        """Apply the options of the lease and Ray Serve's current configuration."""
        assert self._replica is not None
        self._options = lease.options
        compression.max_message_length = lease.options.max_receive_message_length
        self._log_option_differences()
        settings = self._settings()
        if settings != self._server.host.settings:
            self._server.reconfigure(settings)
        if lease.several_nodes and not self._is_public:
            # Only now: on a cluster of one node, only the node's proxy needs to connect.
            await self._server.listen(self._replica.endpoint.host, self._replica.endpoint.port)
            self._is_public = True

    def _follow_policy(self) -> None:
        """Report calls from now on if the deployment has Ray Serve's default policy, which may change at run time."""
        if self._reports is None or self._reports.done():
            self._reports = None
            if uses_default_policy(deployment_config().autoscaling_config):
                self._reports = asyncio.get_running_loop().create_task(report_calls(lambda: self.ongoing_calls))

    def _refresh_registration(self) -> bool:
        """Update the registration from Ray Serve's current configuration; return True if it changed."""
        assert self._replica is not None
        config, registered = deployment_config(), self._replica
        self._replica = replace(registered, max_waiting=max_waiting(config), scales_to_zero=scales_to_zero(config))
        return registered != self._replica

    def _log_option_differences(self) -> None:
        """Log once that the running ingress has other options than this replica's environment sets."""
        if not self._wanted:
            return
        different = self._options.differences(replace(self._options, **self._wanted))
        if different and different != self._logged_differences:
            logger.warning(
                "the ingress runs with other options than the environment of %s sets: %s; the first replica "
                "created it. sdk.start and `sdk run` change some at run time, a restart of Ray Serve changes all",
                self._replica_id,
                different,
            )
        self._logged_differences = different

    async def _renew_lease(self) -> Lease | None:
        """Renew the lease with the proxy of this node, or at the controller if that is not possible."""
        assert self._node_heartbeat is not None
        if self._controller is None:
            return None
        try:
            return await self._node_heartbeat.renew(self._options)
        except OSError as error:
            # A node has no proxy with proxy_location="HeadOnly", and for a moment while that restarts.
            logger.debug("no proxy on this node renews the lease of %s: %s", self._replica_id, error)
        lease: Lease | None = await self._controller.renew.remote(self._replica_id, self._options)
        return lease

    async def _keep_lease(self) -> None:
        """Renew the lease at intervals; register again if the controller does not know this replica."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._logs.follow_configuration(self._server)
            self._telemetry.follow_provider()
            self._follow_policy()
            try:
                lease = await self._renew_lease()
                if lease is None or self._refresh_registration():
                    await self._register()
                else:
                    before = self._options
                    await self._apply_lease(lease)
                    if self._options != before:  # sdk.start waits until every replica has confirmed the change
                        await self._controller.renew.remote(self._replica_id, self._options)
            except ray.exceptions.RayError as error:
                logger.warning("the ingress controller does not answer (%s); trying again", type(error).__name__)
                self._controller = None
            except Exception:  # without heartbeats the lease of a serving replica would expire
                logger.exception("the heartbeat of %s failed; trying again", self._replica_id)


def wire_settings(deployment: Any, options: GrpcOptions, application: str) -> WireSettings:
    """Return the settings of a replica's wire server.

    Args:
        deployment: Ray Serve's deployment or its configuration, with the limits of requests.
        options: Options of the ingress.
        application: Name of the application.
    """
    return WireSettings(
        max_ongoing_requests=deployment.max_ongoing_requests,
        max_queued_requests=deployment.max_queued_requests,
        request_timeout_s=options.request_timeout_s,
        max_receive_message_length=options.max_receive_message_length,
        max_metadata_bytes=options.max_metadata_bytes,
        error_details=options.error_details,
        limits=options.access.limits_at_once(application) if options.access is not None else (),
        visible_claims=options.access.visible_claims if options.access is not None else (),
    )


def _node() -> tuple[str, str]:
    """Return this node's id, and its address for other nodes."""
    # Not `ray.nodes()`: that starts threads with a connection to the GCS, which wake up five times a second.
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return ray.get_runtime_context().get_node_id(), address


class _Unannounced:
    """First base of a replica's class, which no ``__init_subclass__`` of the user's classes shall see.

    It may register each subclass, or need arguments.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Leave out those of the other bases."""


def replica_class(cls: Any, *, is_exposed: bool) -> type[Any]:
    """Return the subclass of a decorated class that runs in a Serve replica.

    Args:
        cls: The class.
        is_exposed: False if clients can't call it, only other deployments.
    """

    class GrpcReplica(_Unannounced, cls):  # type: ignore[misc]  # the base is known at run time only
        async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]  # Ray Serve awaits it
            logs = ReplicaLogs()
            await finish_hook(super().__init__(*args, **kwargs))
            self.__grpc_host = ReplicaHost(self, super(), cls.__grpc_definition__, logs, is_exposed=is_exposed)
            await self.__grpc_host.start()

        async def check_health(self) -> None:
            inherited = getattr(super(), "check_health", None)
            if inherited is not None:
                await call_hook(inherited)
            await self.__grpc_host.ensure_registered()

        async def _sdk_cold_start(self) -> None:
            """Answer the request for which this replica was started."""

        async def record_autoscaling_stats(self) -> dict[str, float]:
            inherited = getattr(super(), "record_autoscaling_stats", None)
            stats = {} if inherited is None else await call_hook(inherited)
            return {**stats, ONGOING_CALLS: self.__grpc_host.ongoing_calls}

        async def __del__(self) -> None:
            # Not set if the constructor failed; Ray Serve calls this in any case.
            host = getattr(self, "_GrpcReplica__grpc_host", None)
            try:
                if host is not None:
                    await host.stop()
            finally:
                inherited = getattr(super(), "__del__", None)
                if inherited is not None:
                    await finish_hook(inherited())

    for name, method in checked_methods(cls, cls.__grpc_definition__).items():
        setattr(GrpcReplica, name, method)
    if is_exposed:
        setattr(GrpcReplica, SERVED_SERVICES, tuple(service.full_name for service in cls.__grpc_definition__.services))
    GrpcReplica.__name__, GrpcReplica.__qualname__ = cls.__name__, cls.__qualname__
    GrpcReplica.__module__, GrpcReplica.__doc__ = cls.__module__, cls.__doc__
    return GrpcReplica
