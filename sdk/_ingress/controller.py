"""The ingress controller: one detached Ray actor that turns the registrations of replicas into snapshots for proxies.

Only changed options are stored; all other state is soft. If the controller dies, Ray restarts it, and the proxies send
it their routing tables. Meanwhile they keep serving.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from sdk._ingress import option_store, proxy_fleet
from sdk._ingress.actor_log import log_to_file
from sdk._ingress.cluster import CONTROLLER_NAME, LEASE_S, NAMESPACE, PROXY_LEASE_S, WATCHED_LEASE_S
from sdk._ingress.controller_metrics import ControllerMetrics
from sdk._ingress.owners import Absence, OwnerLeases
from sdk._ingress.publication import Acknowledgements, Publication
from sdk._ingress.recovery import Recovery
from sdk._ingress.registry import Lease, ProxyState, Registry, Replica, WatchAnswer
from sdk._ingress.scale_to_zero.activator import Activator

if TYPE_CHECKING:
    from sdk._channel.feed import DeploymentKey
    from sdk._ingress.serve_link import ServeLink
    from sdk._xds.snapshot import Deployment, Snapshot
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

# Seconds that a proxy's long poll stays open; well below the lease, because each poll is its heartbeat.
_WATCH_S = 5.0
# Least seconds between two published tables: changes in between are published together.
_GAP_S = 0.05
# Seconds between two checks of the nodes and the leases.
_TICK_S = 1.0
# Seconds without a report after which a missing proxy is created again, unless Ray still has its actor.
_PROXY_TIMEOUT_S = 3.0
# Seconds without Ray Serve after which the ingress stops.
_WITHOUT_SERVE_S = 8.0


@dataclass(frozen=True, slots=True)
class IngressStatus:
    """The state of the ingress at one moment."""

    options: GrpcOptions
    snapshot: Snapshot
    proxies: tuple[ProxyState, ...]


class Controller:
    """Class of the controller actor. :func:`create_controller` creates the actor.

    Args:
        options: Options of the ingress, before any change.
        serve: Ray Serve.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self,
        options: GrpcOptions,
        serve: ServeLink,
    ) -> None:
        log_to_file("controller", str(os.getpid()))
        self._serve = serve
        self._without_serve = Absence(_WITHOUT_SERVE_S)
        self._owner_leases = OwnerLeases()
        self._registry = Registry(
            lease_s=LEASE_S,
            watched_lease_s=WATCHED_LEASE_S,
            proxy_lease_s=PROXY_LEASE_S,
            pause_s=LEASE_S / 2,
            options=await option_store.load(options),
        )
        self._changing = asyncio.Lock()
        # Replicas that wait until every proxy routes to them: they send no heartbeats yet.
        self._registering: list[str] = []
        self._activator = Activator(serve.start_first_replica)
        self._changed = asyncio.Event()
        self._publication = Publication()
        self._published = asyncio.Event()
        self._published_at = -_GAP_S
        self._publishing: asyncio.TimerHandle | None = None
        self._recovered = asyncio.Event()
        # Versions of an earlier controller that proxies have sent.
        self._adopted: set[int] = set()
        self._acknowledgements = Acknowledgements(self._registry.is_acknowledged)
        self._proxy_actors: dict[str, Any] = {}
        self._reported_at: dict[str, float] = {}
        self._nodes = 0
        self._metrics = ControllerMetrics()
        # Within one lease, every running replica sends a heartbeat.
        self._recovery = Recovery(LEASE_S)
        self._reconcile_task = asyncio.get_running_loop().create_task(self._reconcile_forever())

    # -- replicas -----------------------------------------------------------------------------

    async def lease(self) -> Lease:
        """Return the lease that a replica needs before it registers."""
        await self._until(lambda: self._nodes > 0, _WATCH_S)
        return self._lease

    async def register(self, replica: Replica, descriptors: bytes, timeout_s: float, options: GrpcOptions) -> bool:
        """Add a replica and wait until every proxy routes to it, at most ``timeout_s``.

        Args:
            replica: The replica.
            descriptors: The serialized ``FileDescriptorSet`` with the replica's digest.
            timeout_s: Maximum seconds to wait.
            options: Options that the replica serves with.

        Returns:
            False if the options have changed meanwhile: the replica must get another lease first.
        """
        if options != self._registry.options:
            return False
        self._registry.register(replica, descriptors)
        self._registry.set_replica_options(replica.endpoint.replica_id, options)
        self._registering.append(replica.endpoint.replica_id)
        try:
            await self._acknowledged(timeout_s)
        finally:
            self._registering.remove(replica.endpoint.replica_id)
        return True

    async def renew(self, replica_id: str, options: GrpcOptions) -> Lease | None:
        """Renew the lease of a replica that serves with these options. Return None if it must register (again)."""
        if not self._registry.renew(replica_id):
            return None
        if self._registry.set_replica_options(replica_id, options):
            self._notify()
        return self._lease

    async def renew_all(self, proxy_id: str, renewals: Mapping[str, GrpcOptions]) -> tuple[Lease, frozenset[str]]:
        """Renew the leases of a proxy and of the replicas on its node.

        Args:
            proxy_id: The proxy.
            renewals: Id of a replica → options that it serves with.

        Returns:
            The lease, and the replicas that must register (again).
        """
        self._registry.renew_proxy(proxy_id)
        renewed = {replica_id for replica_id in renewals if self._registry.renew(replica_id)}
        changed = [each for each in renewed if self._registry.set_replica_options(each, renewals[each])]
        if changed:
            self._notify()
        return self._lease, frozenset(renewals.keys() - renewed)

    async def deregister(self, replica_id: str, timeout_s: float) -> bool:
        """Remove a replica and wait until no proxy routes to it. Return False on timeout."""
        self._registry.deregister(replica_id)
        return await self._acknowledged(timeout_s)

    async def remove_dead(self, replica_ids: Iterable[str]) -> None:
        """Remove replicas whose processes have ended, without waiting for the end of their leases."""
        removed = [replica_id for replica_id in replica_ids if self._registry.deregister(replica_id, "lost")]
        if removed:
            logger.warning("removing replicas whose process has ended: %s", ", ".join(removed))
            self._publish_soon()

    # -- proxies ------------------------------------------------------------------------------

    async def watch(self, state: ProxyState, held: int, table: Snapshot | None = None) -> WatchAnswer:
        """Record a proxy's state, and return the snapshot that it should serve as soon as it differs (long poll).

        Args:
            state: The proxy's state.
            held: Version of the snapshot that it serves; 0 before the first one.
            table: That snapshot, if an earlier answer has asked for it.

        Returns:
            The difference from what it serves, or the whole snapshot if this controller does not know that; nothing if
            it has not changed for 5 s; a request for the proxy's own, while this controller recovers.
        """
        # Most proxies hold the same version. It is one table, and the cluster's largest message.
        if held not in (0, *self._adopted) and table is None and self._recovery.wants_table(state.node_id):
            return WatchAnswer(wants_table=True)
        if table is not None and held not in self._adopted and not self._recovery.is_over:
            self._registry.adopt(table)
            self._adopted.add(held)
        self._recovery.record_report(state.node_id, holds_table=held > 0)
        self._record(state)
        self._publish_soon()
        try:
            async with asyncio.timeout(_WATCH_S):
                while self._publication.version in (0, held):
                    await self._published.wait()
        except TimeoutError:
            pass  # the proxy asks again
        return WatchAnswer(self._publication.update_for(held))

    async def report(self, state: ProxyState) -> None:
        """Record a proxy's state after a change."""
        self._record(state)

    async def report_waiting_calls(
        self, proxy_id: str, counts: Mapping[DeploymentKey, int]
    ) -> Mapping[DeploymentKey, str]:
        """Record the number of calls that wait at a proxy, by deployment.

        Returns:
            Deployment → reason why it can't start, for those of these deployments that can't.
        """
        return self._activator.report(proxy_id, counts)

    async def descriptors(self, digest: str) -> bytes | None:
        """Return the serialized ``FileDescriptorSet`` of a digest; None if it is unknown."""
        return self._registry.descriptors(digest)

    async def failed_applications(self) -> frozenset[str]:
        """Return the names of the applications that failed to deploy."""
        return await asyncio.to_thread(self._serve.list_failed)

    # -- operators ----------------------------------------------------------------------------

    async def wait_ready(self, timeout_s: float) -> str:
        """Wait until the proxy of every node serves. Return the problem if one can't, or an empty string."""
        await self._until(lambda: bool(self._problems()) or self._is_ready(), timeout_s)
        if self._problems():
            return "; ".join(self._problems())
        return "" if self._is_ready() else f"no proxy was ready within {timeout_s:g} s"

    async def status(self) -> IngressStatus:
        """Return the state of the ingress."""
        return IngressStatus(self._registry.options, self._registry.snapshot, self._registry.proxies)

    async def proxies(self) -> tuple[ProxyState, ...]:
        """Return the states of the proxies."""
        return self._registry.proxies

    async def reconfigure(self, options: GrpcOptions, timeout_s: float) -> str:
        """Change the live options, and wait until they are in force on all proxies and replicas.

        Of several concurrent callers the last one wins.

        Args:
            options: The options. Those that can't change while the ingress runs are ignored.
            timeout_s: Maximum seconds to wait. The change stays after a timeout.

        Returns:
            Names of those that have not applied the options yet, or an empty string.
        """
        deadline = time.monotonic() + timeout_s
        async with self._changing:  # store and publish in the same order
            changed = self._registry.options.with_live_options_of(options)
            await option_store.save(changed)
            self._registry.reconfigure(changed)
        late = [] if await self._acknowledged(timeout_s) else ["a proxy"]
        await self._until(lambda: not self._registry.outdated_replicas, deadline - time.monotonic())
        return ", ".join([*late, *self._registry.outdated_replicas])

    async def announce(
        self, application: str, deployments: Iterable[tuple[Deployment, bytes]], timeout_s: float
    ) -> None:
        """Announce deployments that may not have had a replica yet, and wait until every proxy holds their calls."""
        self._registry.announce(application, deployments)
        await self._acknowledged(timeout_s)

    async def delete_application(self, name: str, timeout_s: float) -> None:
        """Remove an application that Ray Serve has deleted, and wait until every proxy has removed it."""
        self._registry.delete_application(name)
        await self._acknowledged(timeout_s)

    async def hold_owner_lease(self, key: str, applications: Sequence[str]) -> None:
        """Make a command the owner of applications; return when it calls :meth:`release_owner_lease` with the key."""
        self._owner_leases.claim(applications, key)
        await self._owner_leases.hold(key)

    async def watch_owner_lease(
        self, key: str, held: list[Any], applications: Sequence[str], ends_serve: bool, ends_ingress: bool
    ) -> None:
        """Delete a command's applications if it dies before it calls :meth:`release_owner_lease`.

        Args:
            key: The key of the lease.
            held: The reference that its call of :meth:`hold_owner_lease` returned, alone in a list, so that Ray does
                not resolve it first.
            applications: Names of the applications that the command deploys. Others may have deployed them since.
            ends_serve: Shut down Ray Serve and the ingress too, unless another application is left.
            ends_ingress: Stop the ingress, unless it still routes to another application.
        """
        end = partial(self._serve.end_applications, ends_serve=ends_serve, ends_ingress=ends_ingress)
        await self._owner_leases.call_on_owner_death(key, held[0], applications, end)

    async def claim_applications(self, applications: Sequence[str]) -> None:
        """Record that a program deploys applications: they no longer end with the command that has deployed them."""
        self._owner_leases.claim(applications)

    async def owned_applications(self, key: str, applications: Sequence[str]) -> tuple[str, ...]:
        """Return those of a lease's applications that nobody else has deployed since."""
        return self._owner_leases.owned(applications, key)

    async def release_owner_lease(self, key: str) -> None:
        """End the lease that :meth:`hold_owner_lease` began with the same key."""
        self._owner_leases.release(key)

    async def stop(self) -> None:
        """Stop every proxy with its Envoy. The caller then kills this actor."""
        self._reconcile_task.cancel()
        await self._activator.stop()
        await self._stop_proxies()
        await option_store.delete()

    # -- inside -------------------------------------------------------------------------------

    @property
    def _lease(self) -> Lease:
        return Lease(self._registry.options, self._nodes > 1)

    async def _stop_proxies(self) -> None:
        await asyncio.gather(*(proxy_fleet.stop(actor) for actor in self._proxy_actors.values()))
        self._proxy_actors.clear()

    def _problems(self) -> tuple[str, ...]:
        return tuple(proxy.problem for proxy in self._registry.proxies if proxy.problem)

    def _is_ready(self) -> bool:
        proxies = self._registry.proxies
        return bool(self._proxy_actors) and len(proxies) >= len(self._proxy_actors) and all(p.version for p in proxies)

    async def _reconcile_forever(self) -> None:
        """Keep a proxy on every node and expire leases, every second until the ingress stops."""
        while True:
            try:
                await self._reconcile()
            except Exception:
                logger.exception("the ingress controller could not check its nodes and leases; trying again")
            self._publish_soon()
            self._acknowledgements.settle()
            self._metrics.export(self._registry.snapshot.version, self._registry.proxies, self._registry.removed)
            self._notify()
            await asyncio.sleep(_TICK_S)

    async def _reconcile(self) -> None:
        self._activator.expire()
        for replica_id in self._registering:
            self._registry.renew(replica_id)
        expired = self._registry.expire()
        if expired:
            logger.warning("removing replicas without a heartbeat for at least %g s: %s", LEASE_S, ", ".join(expired))
        alive = await asyncio.to_thread(proxy_fleet.alive_nodes)
        self._nodes = len(alive)
        options = self._registry.options
        nodes = {node_id for node_id, is_head in alive.items() if is_head or options.proxy_location == "EveryNode"}
        if not self._recovery.is_expecting:
            self._recovery.expect(await asyncio.to_thread(proxy_fleet.nodes_with_proxy, nodes))
        for node_id in nodes - self._proxy_actors.keys() | self._silent_nodes():
            self._proxy_actors[node_id] = await asyncio.to_thread(proxy_fleet.create, node_id, options)
        for node_id in self._proxy_actors.keys() - nodes:
            self._proxy_actors.pop(node_id)
            for proxy in self._registry.proxies:
                if proxy.node_id == node_id:
                    self._registry.remove_proxy(proxy.proxy_id)
        silent = self._registry.without_replicas()
        if silent:
            present = await asyncio.to_thread(self._serve.list_deployments)
            if present is not None:
                self._registry.remove_deployments(
                    (application, name)
                    for application, name in silent
                    if application not in present or (present[application] and name not in present[application])
                )
        if self._without_serve.update(await asyncio.to_thread(self._serve.is_running), time.monotonic()):
            logger.warning("Ray Serve has been gone for %g s; stopping the ingress", _WITHOUT_SERVE_S)
            await self._stop_proxies()
            await option_store.delete()
            await asyncio.to_thread(ray.kill, ray.get_runtime_context().current_actor)

    def _silent_nodes(self) -> set[str]:
        """Return the nodes whose proxy does not report (any more): it may have been killed for good."""
        now = time.monotonic()
        reporting = {proxy.node_id for proxy in self._registry.proxies}
        for node_id in self._proxy_actors:
            if node_id in reporting:
                self._reported_at[node_id] = now
            else:
                self._reported_at.setdefault(node_id, now)
        silent = {node_id for node_id in self._proxy_actors if now >= self._reported_at[node_id] + _PROXY_TIMEOUT_S}
        self._reported_at.update(dict.fromkeys(silent, now))
        return silent

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _record(self, state: ProxyState) -> None:
        self._registry.report(state)
        self._acknowledgements.settle()
        self._notify()

    def _publish_soon(self) -> None:
        """Publish the table if it has changed: at once, or together with other changes a moment after the last time."""
        if self._recovery.is_over:
            self._recovered.set()
            if self._publishing is None and self._registry.snapshot.version != self._publication.version:
                loop, due = asyncio.get_running_loop(), self._published_at + _GAP_S
                if loop.time() >= due:
                    self._publish()
                else:
                    self._publishing = loop.call_at(due, self._publish)

    def _publish(self) -> None:
        self._publishing, self._published_at = None, asyncio.get_running_loop().time()
        self._publication.add(self._registry.snapshot)
        self._published.set()
        self._published = asyncio.Event()

    async def _acknowledged(self, timeout_s: float) -> bool:
        """Wait until every proxy serves the current snapshot. Return False on timeout."""
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._publish_soon()
        try:
            async with asyncio.timeout(timeout_s):
                # During recovery the tables that proxies got from an earlier controller are not known yet.
                await self._recovered.wait()
                self._publish_soon()
                self._acknowledgements.add(self._registry.snapshot.version, acknowledged)
                await acknowledged
        except TimeoutError:
            return False
        return True

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return condition()
        return True


def create_controller(options: GrpcOptions, serve: ServeLink) -> Any:
    """Return a handle to the controller, and create it if it does not exist. See :class:`Controller`."""
    return (
        ray.remote(Controller)
        .options(
            name=CONTROLLER_NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=10_000,
            scheduling_strategy="DEFAULT",  # a replica that creates it may run in a placement group
        )
        .remote(options, serve)
    )
