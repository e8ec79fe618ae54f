"""The inside of a proxy actor, one per node: run Envoy, configure it over ADS, and answer calls without a route."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from sdk._figures.scrape import read_metrics
from sdk._ingress.actor_log import log_to_file
from sdk._ingress.builtin.services import BuiltinServices
from sdk._ingress.cluster import find_controller, is_draining
from sdk._ingress.credentials import Credentials
from sdk._ingress.endpoint_feed import EndpointFeed
from sdk._ingress.envoy.admin import admin_request
from sdk._ingress.envoy.adoption import (
    SupervisedEnvoy,
    adopt,
    make_config,
    start_envoy,
)
from sdk._ingress.envoy.certificates import check_certificates
from sdk._ingress.envoy.drain import drain_envoy
from sdk._ingress.envoy.listening import (
    FALLBACK_SOCKET,
    SERVICE_NAME,
    format_address,
    gate_server,
    link_stdout,
    listener_config,
    write_secret_files,
)
from sdk._ingress.envoy.process import check_port, envoy_command, find_envoy, log_tail
from sdk._ingress.envoy.stored_tables import StoredTables, TableStore, load_tables
from sdk._ingress.local_replicas import LocalReplicas
from sdk._ingress.node_leases import NodeLeases
from sdk._ingress.own_answers import add_span
from sdk._ingress.proxy_metrics import ProxyMetrics
from sdk._ingress.publication import apply_update
from sdk._ingress.registry import ProxyState
from sdk._ingress.scale_to_zero.gate import Gate
from sdk._ingress.table_delta import DeltaRefused
from sdk._otel.environment import Telemetry
from sdk._xds.ads_server import AdsServer
from sdk._xds.bootstrap import build_bootstrap
from sdk._xds.rejection import IsolatingPublisher
from sdk._xds.resources import ResourceBuilder
from sdk._xds.snapshot import Snapshot
from sdk.errors import IngressError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sdk._channel.feed import DeploymentKey
    from sdk._ingress.envoy.supervisor import SupervisorConfig
    from sdk._ingress.registry import Lease, WatchAnswer
    from sdk._wire.server import WireServer

logger = logging.getLogger("sdk.ingress")

# Seconds that Envoy has to acknowledge a snapshot before the proxy reports a problem.
_PUBLISH_TIMEOUT_S = 10.0
_RETRY_S = 0.2
# Seconds until another try after a snapshot that Envoy did not acknowledge, with the newest one.
_REJECTED_RETRY_S = 1.0
# Seconds to wait for the port, which an Envoy still has for a moment after its supervisor was killed.
_PORT_TIMEOUT_S = 5.0
# Seconds between two checks whether Ray drains the node.
_DRAIN_POLL_S = 2.0
# Seconds that the export of the last spans may take.
_FLUSH_S = 3.0
# Seconds without a controller, not even one that is being restarted, after which this proxy stops.
_ABANDONED_S = 30.0


class NodeProxy:
    """The ingress on one node. Runs in the proxy actor of the node, which the controller creates.

    Args:
        node_id: Ray's id of its node.
        options: Options of the ingress. After a restart of the actor these are the original ones again, so live options
            are taken from the snapshots.
    """

    def __init__(self, node_id: str, options: GrpcOptions) -> None:
        log_to_file("proxy", node_id[:12])
        self._options = options
        self._state = ProxyState(uuid.uuid4().hex, node_id, format_address(options.host, options.port))
        self._snapshot: Snapshot | None = None
        # The routing table of an adopted Envoy, from its previous proxy actor.
        self._restored: StoredTables | None = None
        self._folder = Path(tempfile.gettempdir(), f"sdk-ingress-{node_id[:12]}")
        self._store = TableStore(self._folder)
        self._ads: AdsServer | None = None
        self._fallback_server: WireServer | None = None
        self._gate_server: Any = None
        self._gate = Gate(self._report_waiting_calls, elsewhere=lambda: self._feed.waiting)
        self._feed = EndpointFeed(self._gate.notify)
        self._leases = NodeLeases(self._renew_leases)
        self._replicas = LocalReplicas(node_id)
        self._credentials = Credentials()
        self._builder = ResourceBuilder(node_id)
        self._publisher = IsolatingPublisher(self._push)
        # Publications take turns, so that an older routing table never follows a newer one.
        self._turn = asyncio.Lock()
        self._built_in = BuiltinServices(
            self._in_force, self._fetch_descriptors, self._fetch_failed, self._fetch_proxies, read_metrics
        )
        self._envoy: SupervisedEnvoy | None = None
        self._confirm_task: asyncio.Task[None] | None = None
        self._telemetry = Telemetry()
        self._telemetry.set_up(os.environ, "traces", SERVICE_NAME, node_id)
        self._metrics = ProxyMetrics(
            node_id,
            self._folder / "admin.sock",
            lambda: self._state.version,
            has_tls=options.tls_certificate is not None,
        )
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start or adopt Envoy, and watch the controller. What fails is reported to it."""
        node_id, loop = self._state.node_id, asyncio.get_running_loop()
        try:
            check_certificates(self._options)
            config, bootstrap = self._envoy_config()
            is_adopted = await self._adopt(config)
            if not is_adopted:
                await self._wait_for_port()
                self._make_folder(bootstrap)
            link_stdout(self._folder)
            if is_adopted:
                await self._reopen_logs()
            self._ads = AdsServer(str(self._folder / "ads.sock"), add_span)
            await self._ads.start()
            await self._start_fallback()
            await self._start_gate()
            self._tasks.append(loop.create_task(self._watch_envoy(config)))
        except (IngressError, OSError) as error:
            self._change(problem=str(error))
        # Report errors to the controller instead of raising them: Ray would restart the actor without end.
        self._tasks += [
            loop.create_task(task)
            for task in (
                self._watch_controller(),
                self._report_changes(),
                self._report_dead_replicas(),
                self._watch_drain(),
                self._feed.listen(node_id),
                self._leases.listen(node_id),
                self._gate.report_forever(),
                self._credentials.watch(self._on_new_keys),
                self._metrics.export_forever(
                    lambda: self._fallback_server, lambda: self._built_in.is_draining, self._gate.take_refused
                ),
            )
        ]

    async def stop(self) -> None:
        """Drain and stop Envoy and the proxy's servers, and remove the folder."""
        if self._confirm_task is not None:
            self._tasks.append(self._confirm_task)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._built_in.drain()
        self._gate.close()
        self._feed.stop()
        self._leases.stop()
        self._replicas.stop()
        if self._envoy is not None:
            await drain_envoy(self._folder / "admin.sock")
            await self._envoy.stop()
        if self._fallback_server is not None:
            await self._fallback_server.drain(quiet_s=0, grace_s=0)
        if self._gate_server is not None:
            await self._gate_server.stop(None)
        if self._ads is not None:
            await self._ads.stop()
        await self._telemetry.shut_down_within(_FLUSH_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def poll_endpoints(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> list[bytes]:
        """Return new states of the deployments that a program on a node without a proxy calls (long poll)."""
        return await self._feed.poll(program_id, interests)

    async def note_interests(self, program_id: str, interests: Mapping[DeploymentKey, int]) -> None:
        """Take a change of such a program's interests while its poll is open."""
        self._feed.note(program_id, interests)

    # -- inside -------------------------------------------------------------------------------

    def _envoy_config(self) -> tuple[SupervisorConfig, bytes]:
        """Return the configuration of Envoy's supervisor, and the content of Envoy's bootstrap file."""
        bootstrap = build_bootstrap(
            node_id=self._state.node_id,
            ads_socket=str(self._folder / "ads.sock"),
            admin_socket=str(self._folder / "admin.sock"),
            max_memory_bytes=self._options.max_envoy_memory_bytes,
        ).SerializeToString(deterministic=True)
        command = envoy_command(
            find_envoy(), self._folder / "bootstrap.pb", self._folder / "envoy.log", self._options.envoy_concurrency
        )
        # Live options are left out of the digest: an Envoy is adopted whatever their values.
        return make_config(command, bootstrap, self._options.with_live_options_of(GrpcOptions())), bootstrap

    async def _adopt(self, config: SupervisorConfig) -> bool:
        """Adopt the running Envoy and the routing table of an earlier proxy actor. Return whether there is one."""
        found = await adopt(self._folder, config)
        if found is None:
            return False
        self._envoy, self._restored = found, load_tables(self._folder)
        self._snapshot = self._restored.published if self._restored is not None else None
        version = self._snapshot.version if self._snapshot is not None else 0
        # The version stays 0: Envoy may have been restarted while no actor was there to configure it.
        self._change(envoy_pid=found.state.envoy_pid)
        logger.info("adopted Envoy %d with version %d of the routing table", found.state.envoy_pid, version)
        return True

    async def _reopen_logs(self) -> None:
        """Let Envoy open the output of this process: it may have that of an earlier one open."""
        if self._options.access_log == "stdout":
            try:
                await admin_request(self._folder / "admin.sock", "POST", "/reopen_logs")
            except (OSError, TimeoutError) as error:  # the supervisor may be restarting it: then it opens the new one
                logger.warning("Envoy may write the access log to the output of an earlier process: %r", error)

    async def _wait_for_port(self) -> None:
        """Wait until the port is free. An Envoy of this node that was replaced may need a moment to end.

        Raises:
            IngressError: Another process listens on the port.
        """
        deadline = time.monotonic() + (_PORT_TIMEOUT_S if self._folder.exists() else 0)
        while True:
            try:
                return check_port(self._options.host, self._options.port)
            except IngressError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)

    def _make_folder(self, bootstrap: bytes) -> None:
        """Create an empty folder for sockets and logs.

        Its name is short, because the path of a unix socket has at most 107 bytes. Only this user can enter it, because
        a process that can open Envoy's admin socket can stop Envoy.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        (self._folder / "bootstrap.pb").write_bytes(bootstrap)
        write_secret_files(listener_config(self._options, self._folder, has_gate=True))

    async def _start_fallback(self) -> None:
        server = self._built_in.server(self._options)
        await server.listen_at(str(self._folder / FALLBACK_SOCKET))
        self._fallback_server = server

    async def _start_gate(self) -> None:
        self._gate_server = gate_server(self._gate.generic_handler(), self._folder)
        await self._gate_server.start()

    async def _renew_leases(self, renewals: Mapping[str, GrpcOptions]) -> tuple[Lease, frozenset[str]]:
        controller = await asyncio.to_thread(find_controller)
        if controller is None:
            raise IngressError("the ingress controller is gone")
        renewed: tuple[Lease, frozenset[str]] = await controller.renew_all.remote(self._state.proxy_id, renewals)
        return renewed

    async def _report_waiting_calls(self, counts: Mapping[DeploymentKey, int]) -> Mapping[DeploymentKey, str]:
        controller = await asyncio.to_thread(find_controller)
        if controller is None:
            return {}
        reasons: Mapping[DeploymentKey, str] = await controller.report_waiting_calls.remote(
            self._state.proxy_id, counts
        )
        for key, reason in reasons.items():
            self._feed.fail(key, reason)
        return reasons

    async def _watch_envoy(self, config: SupervisorConfig) -> None:
        """Watch Envoy without end. Its supervisor restarts it; if the supervisor ends, start another one."""
        while True:
            if self._envoy is not None:
                self._change(envoy_pid=self._envoy.state.envoy_pid)
                async for state in self._envoy.states():
                    if state.envoy_pid:
                        self._change(envoy_pid=state.envoy_pid)
                    else:
                        self._on_envoy_exit()
                        logger.error("Envoy exited with code %s; restarting it: %s", state.exit_code, self._log_tail())
                self._envoy.disconnect()
                self._envoy = None
                self._on_envoy_exit()
                logger.error("Envoy's supervisor ended, and Envoy with it; restarting both")
            try:
                self._envoy = await start_envoy(self._folder, config)
            except OSError as error:
                logger.error("Envoy can't be started: %s; trying again", error)
                await asyncio.sleep(_RETRY_S)

    def _on_envoy_exit(self) -> None:
        """Report version 0 until the next Envoy has acknowledged the routing table."""
        self._change(envoy_pid=0, version=0)
        if self._ads is not None:
            self._ads.disconnect()
        if self._confirm_task is not None:
            self._confirm_task.cancel()
        if self._snapshot is not None:
            self._confirm_task = asyncio.get_running_loop().create_task(self._confirm())

    async def _confirm(self) -> None:
        """Report the version of the routing table when the restarted Envoy serves it."""
        assert self._ads is not None
        assert self._snapshot is not None
        while True:
            try:
                await asyncio.wait_for(self._ads.wait_acked(), _PUBLISH_TIMEOUT_S)
            except TimeoutError:  # each wait may fail separately
                self._fail_to_acknowledge()
            else:
                self._change(version=self._snapshot.version, problem="")
                return

    async def _watch_controller(self) -> None:
        """Long-poll the controller and publish its snapshots, until the controller has been gone for a while."""
        answered_at = time.monotonic()
        while time.monotonic() < answered_at + _ABANDONED_S:
            try:
                if self._restored is not None and self._publisher.in_force is None:
                    # The adopted Envoy has this table. An Envoy that is restarted before the controller answers needs
                    # it too.
                    self._feed.publish(self._restored.published)
                    for table in dict.fromkeys(self._restored):
                        await self._publish(table)
                controller = await asyncio.to_thread(find_controller)
                while controller is not None:
                    answered_at = time.monotonic()
                    snapshot = await self._next_snapshot(controller)
                    if snapshot is not None:
                        self._replicas.follow(snapshot)
                        self._feed.publish(snapshot)  # before Envoy has it: a leaving replica waits for the callers
                    if snapshot is not None and not self._is_broken:
                        await self._publish(snapshot)
                    elif self._snapshot is not None and self._publisher.is_retry_due():
                        await self._publish(self._snapshot)
                    if snapshot is not None and self._snapshot is not snapshot:
                        await asyncio.sleep(_REJECTED_RETRY_S)
            except ray.exceptions.RayError as error:
                # The controller is being restarted. Envoy keeps its configuration.
                answered_at = time.monotonic()
                logger.warning("the ingress controller does not answer (%s); trying again", type(error).__name__)
            except Exception:  # without this loop the proxy would keep an old table
                logger.exception("watching the ingress controller failed; trying again")
            await asyncio.sleep(_RETRY_S)
        logger.warning("the ingress controller has been gone for %g s; stopping this proxy", _ABANDONED_S)
        self._abandoning = asyncio.get_running_loop().create_task(self._abandon())

    async def _next_snapshot(self, controller: Any) -> Snapshot | None:
        """Return the controller's newest snapshot; None if this proxy has it.

        The controller sends the difference from the own one. That is sent only to a controller that recovers from a
        restart and asks for it.
        """
        held = self._snapshot.version if self._snapshot is not None else 0
        answer: WatchAnswer = await controller.watch.remote(self._state, held)
        if answer.wants_table:
            answer = await controller.watch.remote(self._state, held, self._snapshot)
        try:
            return apply_update(answer.update, self._snapshot) if answer.update is not None else None
        except DeltaRefused as error:
            logger.warning("asking for the whole routing table: %s", error)
        answer = await controller.watch.remote(self._state, 0)
        return apply_update(answer.update, None) if answer.update is not None else None

    async def _abandon(self) -> None:
        await self.stop()
        await asyncio.to_thread(ray.kill, ray.get_runtime_context().current_actor)

    async def _watch_drain(self) -> None:
        """Report NOT_SERVING to load balancers while Ray drains this node."""
        while True:
            try:
                self._built_in.drain(await asyncio.to_thread(is_draining, self._state.node_id))
            except Exception as error:  # Ray raises errors of several types while its head is being restarted
                logger.debug("can't find out whether Ray drains this node: %s", error)
            await asyncio.sleep(_DRAIN_POLL_S)

    async def _report_changes(self) -> None:
        """Report changes of the state to the controller at once. Each long poll reports the state, too."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                controller = await asyncio.to_thread(find_controller)
                if controller is not None:
                    await controller.report.remote(self._state)
            except ray.exceptions.RayError as error:
                logger.debug("can't report to the ingress controller: %s", error)

    async def _report_dead_replicas(self) -> None:
        """Let the controller remove dead replicas of this node, until its table is without them."""
        while True:
            dead = await self._replicas.wait_dead()
            try:
                controller = await asyncio.to_thread(find_controller)
                if controller is not None:
                    await controller.remove_dead.remote(dead)
            except ray.exceptions.RayError as error:
                logger.debug("can't report to the ingress controller: %s", error)
            await asyncio.sleep(_RETRY_S)

    @property
    def _is_broken(self) -> bool:
        return self._ads is None or self._fallback_server is None

    async def _publish(self, snapshot: Snapshot) -> None:
        async with self._turn:
            await self._publish_in_turn(snapshot)

    async def _publish_in_turn(self, snapshot: Snapshot) -> None:
        try:
            is_complete = await self._publisher.publish(snapshot)
        except TimeoutError:
            self._fail_to_acknowledge()
        except IngressError as error:
            self._fail(str(error))
        else:
            self._built_in.notify()
            if not is_complete:
                return
            # Not before: a snapshot that Envoy has not acknowledged is requested and published again.
            self._snapshot = snapshot
            rejected_applications = self._publisher.rejected_applications
            for rejected in sorted(set(rejected_applications) - set(self._state.rejected_applications)):
                logger.error("the newest state is not in force: %s", rejected)
            # Store it before it is reported: removed replicas must not come back with the next actor.
            self._store.store(StoredTables(self._in_force(), snapshot))
            self._change(
                version=snapshot.version,
                problem=self._credentials.problem,
                rejected_applications=rejected_applications,
            )

    async def _push(self, snapshot: Snapshot) -> None:
        """Publish this routing table, and return when Envoy has acknowledged it."""
        assert self._ads is not None
        config = listener_config(self._options, self._folder, has_gate=True)
        self._gate.on_publish(snapshot)
        keys = await self._credentials.load(snapshot.access)
        resources = self._builder.build(snapshot, config, keys)
        await asyncio.wait_for(self._ads.publish(resources), _PUBLISH_TIMEOUT_S)
        self._gate.on_acknowledged(snapshot)

    async def _on_new_keys(self) -> None:
        """Publish the routing table with the new keys. Envoy's listener and its connections stay."""
        async with self._turn:
            if self._snapshot is not None and not self._is_broken:
                await self._publish_in_turn(self._snapshot)

    def _in_force(self) -> Snapshot:
        """Return the routing table that Envoy serves."""
        return self._publisher.in_force or (self._restored.in_force if self._restored is not None else Snapshot(0))

    def _change(self, **changes: Any) -> None:
        """Change the state, and let it be reported."""
        state = replace(self._state, **changes)
        if state != self._state:
            self._state = state
            self._changed.set()

    def _fail(self, problem: str) -> None:
        if problem != self._state.problem:
            logger.error("%s", problem)
        self._change(problem=problem)

    def _fail_to_acknowledge(self) -> None:
        problem = f"Envoy did not acknowledge the routing table within {_PUBLISH_TIMEOUT_S:g} s. {self._log_tail()}"
        self._fail(problem.rstrip())

    def _log_tail(self) -> str:
        return log_tail(self._folder / "envoy.log")

    async def _fetch_descriptors(self, digest: str) -> bytes | None:
        controller = await asyncio.to_thread(find_controller)
        descriptors: bytes | None = controller and await controller.descriptors.remote(digest)
        return descriptors

    async def _fetch_failed(self) -> Collection[str]:
        controller = await asyncio.to_thread(find_controller)
        failed: Collection[str] = await controller.failed_applications.remote() if controller is not None else ()
        return failed

    async def _fetch_proxies(self) -> Sequence[ProxyState]:
        controller = await asyncio.to_thread(find_controller)
        proxies: Sequence[ProxyState] = await controller.proxies.remote() if controller is not None else ()
        return proxies
