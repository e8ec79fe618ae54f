"""Inside a Serve replica: the user's class, the wire server in front of it, and its place in the ingress.

Only Ray Serve's public hooks are used: ``async __init__``, ``check_health``,
``record_autoscaling_stats`` and ``__del__``. The replica registers at
its first health check, not in its constructor: Ray Serve calls ``reconfigure`` between the two.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import ray
from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from sdk._contract.interceptors import make_interceptors
from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._ingress.cluster import HEARTBEAT_S, find_controller
from sdk._ingress.env_options import from_environment
from sdk._ingress.registry import Lease, Replica
from sdk._serve.autoscaling import ONGOING_CALLS, max_waiting
from sdk._serve.autoscaling_reports import report_calls
from sdk._serve.deployed_classes import SERVED
from sdk._serve.ingress_bootstrap import join_ingress
from sdk._serve.internals import cancel_child_requests, deployment_config, request_context_setter
from sdk._wire.crash_trailers import CrashTrailers
from sdk._wire.host import WireSettings
from sdk._wire.malloc import keep_freed_memory
from sdk._wire.server import WireServer
from sdk._xds.snapshot import Endpoint
from sdk.errors import RpcError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from sdk._contract.definition import Definition

logger = logging.getLogger("ray.serve")

# Seconds that a new replica waits for every proxy to route to it, and a leaving one for none to.
_ACKNOWLEDGE_S = 10.0
# A leaving replica serves on until no call has arrived for this long: some may be on their way already.
_QUIET_S = 0.1
_MIN_QUIET_S = 0.25
# Each thread of Envoy closes its idle connections when it forgets a replica: on a machine without time to spare long
# after the acknowledgement.
_IDLE_CLOSE_S = 3.0
# Seconds after which a controller that does not answer is asked again.
_RETRY_S = 0.2
# Kept of the grace, so that the last answers leave before Ray Serve kills the process.
_MARGIN_S = 1.0
# The part of that margin in which clients whose calls outlived the grace read so and go.
_LINGER_S = 0.5


class ReplicaHost:
    """Serves one instance of a decorated class.

    Args:
        implementation: The instance.
        definition: What its class is.
    """

    def __init__(self, implementation: Any, definition: Definition) -> None:
        context = serve.get_replica_context()
        self._options = GrpcOptions()
        self._wanted = from_environment(os.environ)  # a wrong one ends the start of the replica
        self._services = tuple(service.full_name for service in definition.services)
        self._streams = any(
            method.cardinality.server_streaming for service in definition.services for method in service.methods
        )
        self._idempotent = definition.idempotent_paths
        self._digest, self._descriptors = serialize_descriptors(service.file for service in definition.services)
        self._application, self._deployment = context.app_name, context.deployment
        self._replica_id = context.replica_id.to_full_id_str()
        self._controller: Any = None
        self._replica: Replica | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._reports: asyncio.Task[None] | None = None
        self._leaving = False
        self._was_registered = False
        self._is_public = False
        self._is_alone = False
        self._told_differences = ""
        # What the wire server logs goes where the handlers' own lines go, as Ray Serve was told to log.
        logging.getLogger("sdk").parent = logger
        self._server = WireServer(
            [binding for shim in definition.shims for binding in shim.bindings(implementation)],
            self._settings(),
            on_start=request_context_setter(self._application),
            on_cancel=cancel_child_requests,
            translate_error=translate,
            application=self._application,
            compression=definition.compression,
            interceptors=make_interceptors(definition.cls_name, definition.interceptors),
        )

    async def start(self) -> None:
        """Start the wire server; nothing is routed to it yet."""
        keep_freed_memory()
        if self._streams:
            loop = asyncio.get_running_loop()
            self._server.host.crash_trailers = await asyncio.to_thread(CrashTrailers.start, loop)
        node_id, host = await asyncio.to_thread(_node)
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
        )
        self._reports = asyncio.get_running_loop().create_task(report_calls(lambda: self.ongoing_calls))

    async def ensure_registered(self) -> None:
        """Register with the ingress, the first time it is called; then a task keeps the lease.

        Raises:
            RuntimeError: The replica has left. A restarted controller of Ray Serve may want to keep it all the same.
        """
        if self._leaving:
            raise RuntimeError(f"{self._replica_id} has left the ingress and can't come back")
        if self._heartbeat is None:
            await self._register()
            self._heartbeat = asyncio.get_running_loop().create_task(self._keep_lease())

    @property
    def ongoing_calls(self) -> int:
        """How many calls run or wait."""
        return self._server.count_calls()

    async def stop(self) -> None:
        """Leave without losing a call: deregister, wait until no proxy routes here, drain."""
        self._leaving = True
        began = time.monotonic()
        tasks = [task for task in (self._heartbeat, self._reports) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        config = deployment_config()
        if self._was_registered:
            patience_s = min(_ACKNOWLEDGE_S, config.graceful_shutdown_timeout_s / 2)
            if not await self._deregister(began + patience_s):
                logger.warning("not every proxy has stopped routing to %s", self._replica_id)
        # Ray Serve spends one wait loop of the grace before it calls us.
        spent = time.monotonic() - began + config.graceful_shutdown_wait_loop_s + _MARGIN_S
        await asyncio.sleep(_MIN_QUIET_S)
        grace_s = max(0.0, config.graceful_shutdown_timeout_s - spent)
        await self._server.drain(quiet_s=_QUIET_S, grace_s=grace_s, idle_close_s=_IDLE_CLOSE_S, linger_s=_LINGER_S)
        if self._server.host.crash_trailers is not None:
            self._server.host.crash_trailers.close()

    # -- inside -------------------------------------------------------------------------------

    def _settings(self) -> WireSettings:
        config = deployment_config()
        return WireSettings(
            max_ongoing_requests=config.max_ongoing_requests,
            max_queued_requests=config.max_queued_requests,
            request_timeout_s=self._options.request_timeout_s,
            max_receive_message_length=self._options.max_receive_message_length,
            max_metadata_bytes=self._options.max_metadata_bytes,
            error_details=self._options.error_details,
        )

    async def _register(self) -> None:
        if self._is_alone:  # what keeps the ingress away stays as long as Ray Serve does
            self._controller = await asyncio.to_thread(find_controller)
        else:
            joined = await asyncio.to_thread(join_ingress, self._wanted)
            self._controller, self._is_alone = joined.controller, joined.controller is None
            if joined.problem:
                logger.error("%s: %s", self._replica_id, joined.problem)
        if self._controller is None:
            return
        self._is_alone = False
        is_registered = False
        while not is_registered:  # again when the options change in between
            await self._obey(await self._controller.lease.remote())
            self._was_registered = True
            is_registered = await self._controller.register.remote(
                self._replica, self._descriptors, _ACKNOWLEDGE_S, self._options
            )

    async def _deregister(self, deadline: float) -> bool:
        """Return whether no proxy routes here any more. A controller that is being restarted is waited for."""
        while (patience_s := deadline - time.monotonic()) > 0:
            try:
                controller = await asyncio.to_thread(find_controller)
                if controller is None:
                    return True  # without an ingress nobody routes here
                left: bool = await controller.deregister.remote(self._replica_id, patience_s)
                return left
            except ray.exceptions.RayError as error:  # each try may fail by itself
                logger.warning("the ingress could not be told that %s leaves: %s", self._replica_id, error)
                await asyncio.sleep(_RETRY_S)
        return False

    async def _obey(self, lease: Lease) -> None:
        """Serve as the ingress and Ray Serve want it now."""
        assert self._replica is not None
        self._options = lease.options
        self._tell_differences()
        settings = self._settings()
        if settings != self._server.host.settings:
            self._server.host.reconfigure(settings)
        if lease.several_nodes and not self._is_public:
            # Not before: on a cluster of one node nobody but its proxy has a reason to connect.
            await self._server.listen(self._replica.endpoint.host, self._replica.endpoint.port)
            self._is_public = True

    def _is_changed(self) -> bool:
        """Take over what a configuration changed of what this replica announces; return whether it did."""
        assert self._replica is not None
        announced, self._replica = self._replica, replace(self._replica, max_waiting=max_waiting(deployment_config()))
        return announced != self._replica

    def _tell_differences(self) -> None:
        """Say once when the environment of this replica asks for another ingress than the one that runs."""
        if not self._wanted:
            return
        different = self._options.differences(replace(self._options, **self._wanted))
        if different and different != self._told_differences:
            logger.warning(
                "the ingress runs with other options than the environment of %s sets: %s; the first replica "
                "created it. sdk.start and `sdk run` change some while it runs, a new start of Ray Serve changes all",
                self._replica_id,
                different,
            )
        self._told_differences = different

    async def _keep_lease(self) -> None:
        """Tell the controller that this replica lives; register again with one that does not know it."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                lease = self._controller and await self._controller.renew.remote(self._replica_id, self._options)
                if lease is None or self._is_changed():
                    await self._register()
                else:
                    before = self._options
                    await self._obey(lease)
                    if self._options != before:  # who changes them waits until every replica says so
                        await self._controller.renew.remote(self._replica_id, self._options)
            except ray.exceptions.RayError as error:
                logger.warning("the ingress controller does not answer (%s); trying again", type(error).__name__)
                self._controller = None
            except Exception:  # a replica whose heartbeat ended would be forgotten while it serves
                logger.exception("the heartbeat of %s failed; trying again", self._replica_id)


def _node() -> tuple[str, str]:
    """Return this node's id, and the address by which other nodes reach it."""
    node_id = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return node_id, next(str(node["NodeManagerAddress"]) for node in nodes if node["NodeID"] == node_id)


def replica_class(cls: Any) -> type[Any]:
    """Return the subclass of a decorated class that runs in a Serve replica."""

    class GrpcReplica(cls):  # type: ignore[misc]  # the base is known at run time only
        async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]  # Ray Serve awaits it
            await _finish(super().__init__(*args, **kwargs))
            self.__grpc_host = ReplicaHost(self, cls.__grpc_definition__)
            await self.__grpc_host.start()

        async def check_health(self) -> None:
            inherited = getattr(super(), "check_health", None)
            if inherited is not None:
                await _call_hook(inherited)
            await self.__grpc_host.ensure_registered()

        async def _sdk_wake(self) -> None:
            """Answer the request that had this replica started."""

        async def record_autoscaling_stats(self) -> dict[str, float]:
            inherited = getattr(super(), "record_autoscaling_stats", None)
            stats = {} if inherited is None else await _call_hook(inherited)
            return {**stats, ONGOING_CALLS: self.__grpc_host.ongoing_calls}

        async def __del__(self) -> None:
            # Not set when the constructor failed; Ray Serve calls this all the same.
            host = getattr(self, "_GrpcReplica__grpc_host", None)
            try:
                if host is not None:
                    await host.stop()
            finally:
                inherited = getattr(super(), "__del__", None)
                if inherited is not None:
                    await _finish(inherited())

    setattr(GrpcReplica, SERVED, tuple(service.full_name for service in cls.__grpc_definition__.services))
    GrpcReplica.__name__, GrpcReplica.__qualname__ = cls.__name__, cls.__qualname__
    GrpcReplica.__module__, GrpcReplica.__doc__ = cls.__module__, cls.__doc__
    return GrpcReplica


def translate(error: BaseException) -> BaseException:
    """Return the exception that decides the status of a call: what another deployment raised, out of Ray's wrapper."""
    cause = error
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, BackPressureError):
        return RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(cause))
    if isinstance(cause, DeploymentUnavailableError):
        # Its own text names the deployment and says nothing of it.
        return RpcError(grpc.StatusCode.UNAVAILABLE, f"{cause} is not there: it failed to deploy, or was deleted")
    if isinstance(cause, ray.exceptions.RayActorError):
        return RpcError(grpc.StatusCode.UNAVAILABLE, str(cause))
    if isinstance(cause, RequestCancelledError):
        return RpcError(grpc.StatusCode.CANCELLED, str(cause))
    return cause


async def _call_hook(hook: Callable[[], Any]) -> Any:
    """Return what a hook of the user's class returns. As with Ray Serve, a plain function must not stop the loop."""
    return await _finish(hook() if inspect.iscoroutinefunction(hook) else await asyncio.to_thread(hook))


async def _finish(result: Any) -> Any:
    """Return what a hook of the user's class returned; that of an ``async def`` one is awaited."""
    return await result if inspect.isawaitable(result) else result
