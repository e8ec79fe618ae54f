"""The ingress controller: one detached Ray actor that turns what replicas announce into snapshots for the proxies.

Its state is soft, but for options that were changed. When it dies Ray starts it again, the proxies hand it what they
hold, and meanwhile they go on serving what they have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from sdk._ingress import option_store as changed_options
from sdk._ingress import proxy_fleet as proxy_actors
from sdk._ingress.cluster import CONTROLLER_NAME, LEASE_S, NAMESPACE, PROXY_LEASE_S
from sdk._ingress.owners import Absence, Ties
from sdk._ingress.recovery import Learning
from sdk._ingress.registry import Lease, ProxyState, Registry, Replica
from sdk._ingress.scale_to_zero.activator import Waking

if TYPE_CHECKING:
    from sdk._ingress.scale_to_zero.activator import Wake
    from sdk._ingress.scale_to_zero.waiting_calls import Key
    from sdk._xds.snapshot import Deployment, Snapshot
    from sdk.options import GrpcOptions

logger = logging.getLogger("sdk.ingress")

# Seconds that a proxy's question for news stays open; well below the lease, since asking is its heartbeat.
_WATCH_S = 2.0
# Seconds between two looks at the nodes and the leases.
_TICK_S = 1.0
# Seconds after which a proxy that should run and is not known (any more) is created again, if Ray has it no more.
_PROXY_PATIENCE_S = 3.0
# Seconds without Ray Serve after which the ingress ends: nobody is left to serve for.
_WITHOUT_SERVE_S = 8.0


@dataclass(frozen=True, slots=True)
class IngressStatus:
    """The state of the ingress at one moment."""

    options: GrpcOptions
    snapshot: Snapshot
    proxies: tuple[ProxyState, ...]


class Controller:
    """The controller actor's class; :func:`create` makes the actor.

    Args:
        options: Options of the ingress, before any change.
        list_deployments: Returns the names of the deployments of each application that Ray Serve has, none while it
            is not known which those are; None when it can't say. Called in a thread, and only while some deployment has
            no replica.
        has_serve: Tells whether Ray Serve runs, a restart of its controller included. Called in a thread.
        wake: Has a replica of a deployment started, for which calls wait.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self,
        options: GrpcOptions,
        list_deployments: Callable[[], Mapping[str, Container[str]] | None],
        has_serve: Callable[[], bool],
        wake: Wake,
    ) -> None:
        self._list_deployments = list_deployments
        self._has_serve = has_serve
        self._without_serve = Absence(_WITHOUT_SERVE_S)
        self._ties = Ties()
        self._registry = Registry(
            lease_s=LEASE_S,
            proxy_lease_s=PROXY_LEASE_S,
            pause_s=LEASE_S / 2,
            options=await changed_options.restore(options),
        )
        self._changing = asyncio.Lock()
        self._waking = Waking(wake)
        self._changed = asyncio.Event()
        self._proxy_actors: dict[str, Any] = {}
        self._heard_at: dict[str, float] = {}
        self._nodes = 0
        # Until its end, every replica that lives has sent a heartbeat.
        self._learning = Learning(LEASE_S)
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    # -- replicas -----------------------------------------------------------------------------

    async def lease(self) -> Lease:
        """Return what a replica must know before it registers."""
        await self._until(lambda: self._nodes > 0, _WATCH_S)
        return self._lease

    async def register(self, replica: Replica, descriptors: bytes, timeout_s: float, options: GrpcOptions) -> bool:
        """Add a replica and wait until every proxy routes to it, at most ``timeout_s``.

        Args:
            replica: What it announces.
            descriptors: The serialized ``FileDescriptorSet`` whose digest it announces.
            timeout_s: Seconds to wait.
            options: Those that it serves with.

        Returns:
            False: the options were changed meanwhile, and it must ask for another lease first.
        """
        if options != self._registry.options:
            return False
        self._registry.register(replica, descriptors)
        self._registry.note_followed(replica.endpoint.replica_id, options)
        await self._acknowledged(timeout_s)
        return True

    async def renew(self, replica_id: str, options: GrpcOptions) -> Lease | None:
        """Renew the lease of a replica that serves with these options. None: it is not known and must register."""
        if not self._registry.renew(replica_id):
            return None
        if self._registry.note_followed(replica_id, options):
            self._notify()
        return self._lease

    async def deregister(self, replica_id: str, timeout_s: float) -> bool:
        """Remove a replica and wait until no proxy routes to it. Returns False when that took too long."""
        self._registry.deregister(replica_id)
        return await self._acknowledged(timeout_s)

    # -- proxies ------------------------------------------------------------------------------

    async def watch(self, state: ProxyState, held: Snapshot | None) -> Snapshot | None:
        """Take a proxy's report and return the snapshot it should serve, as soon as it is another one.

        Args:
            state: What the proxy reports.
            held: The snapshot that it serves; None while it has none.

        Returns:
            The snapshot, or None when there is no news for a while.
        """
        if not self._learning.is_over and held is not None:
            self._registry.adopt(held)
        self._learning.hear(state.node_id, holds_table=held is not None)
        self._registry.report(state)
        self._notify()
        await self._until(
            lambda: self._learning.is_over and (held is None or self._registry.snapshot != held), _WATCH_S
        )
        snapshot = self._registry.snapshot
        return snapshot if self._learning.is_over and snapshot != held else None

    async def report(self, state: ProxyState) -> None:
        """Take a proxy's report when something has changed there."""
        self._registry.report(state)
        self._notify()

    async def waiting(self, proxy_id: str, counts: Mapping[Key, int]) -> Mapping[Key, str]:
        """Take note of how many calls wait at a proxy for the first replica of which deployment.

        Returns:
            Why some of these deployments can't start.
        """
        return self._waking.report(proxy_id, counts)

    async def descriptors(self, digest: str) -> bytes | None:
        """Return the descriptors that some replica announced; None when none did."""
        return self._registry.descriptors(digest)

    # -- whoever runs the ingress ---------------------------------------------------------------

    async def wait_ready(self, timeout_s: float) -> str:
        """Wait until every node's proxy serves. Returns what keeps one from it, or an empty string."""
        await self._until(lambda: bool(self._problems()) or self._is_ready(), timeout_s)
        if self._problems():
            return "; ".join(self._problems())
        return "" if self._is_ready() else f"no proxy was ready within {timeout_s:g} s"

    async def status(self) -> IngressStatus:
        """Return the state of the ingress."""
        return IngressStatus(self._registry.options, self._registry.snapshot, self._registry.proxies)

    async def reconfigure(self, options: GrpcOptions, timeout_s: float) -> str:
        """Change the options that can change while the ingress runs, and wait until they are in force everywhere.

        Of several callers the last one wins.

        Args:
            options: The options; what can't change is left as it is.
            timeout_s: Seconds to wait. What was changed then stays so.

        Returns:
            Where they are not in force yet, or an empty string.
        """
        deadline = time.monotonic() + timeout_s
        async with self._changing:  # kept and published in the same order
            changed = self._registry.options.with_live_of(options)
            await changed_options.keep(changed)
            self._registry.reconfigure(changed)
        late = [] if await self._acknowledged(timeout_s) else ["a proxy"]
        await self._until(lambda: not self._registry.behind, deadline - time.monotonic())
        return ", ".join([*late, *self._registry.behind])

    async def announce(
        self, application: str, deployments: Iterable[tuple[Deployment, bytes]], timeout_s: float
    ) -> None:
        """Make deployments known that have had no replica yet, and wait until every proxy lets their calls wait."""
        self._registry.announce(application, deployments)
        await self._acknowledged(timeout_s)

    async def delete_application(self, name: str, timeout_s: float) -> None:
        """Drop an application that Ray Serve has deleted, and wait until every proxy has."""
        self._registry.delete_application(name)
        await self._acknowledged(timeout_s)

    async def hold(self, key: str) -> None:
        """Return when :meth:`release` is called with the same key."""
        await self._ties.hold(key)

    async def tie(self, held: list[Any], end: Callable[[], None]) -> None:
        """Call ``end`` when the process that called :meth:`hold` dies before it calls :meth:`release`.

        Args:
            held: The reference that its call returned, alone in a list, so that Ray does not wait for it.
            end: What is left to do then.
        """
        await self._ties.end_with_owner(held[0], end)

    async def release(self, key: str) -> None:
        """End what :meth:`hold` with the same key began."""
        self._ties.release(key)

    async def stop(self) -> None:
        """Stop every proxy with its Envoy. The caller then ends this actor."""
        self._tending.cancel()
        await self._waking.stop()
        await self._stop_proxies()
        await changed_options.forget()

    # -- inside -------------------------------------------------------------------------------

    @property
    def _lease(self) -> Lease:
        return Lease(self._registry.options, self._nodes > 1)

    async def _stop_proxies(self) -> None:
        await asyncio.gather(*(proxy_actors.stop(actor) for actor in self._proxy_actors.values()))
        self._proxy_actors.clear()

    def _problems(self) -> tuple[str, ...]:
        return tuple(proxy.problem for proxy in self._registry.proxies if proxy.problem)

    def _is_ready(self) -> bool:
        proxies = self._registry.proxies
        return bool(self._proxy_actors) and len(proxies) >= len(self._proxy_actors) and all(p.version for p in proxies)

    async def _tend(self) -> None:
        """Keep a proxy on every node and forget what no longer reports, for ever."""
        while True:
            try:
                await self._tend_once()
            except Exception:
                logger.exception("the ingress controller could not look after its proxies; it tries again")
            self._notify()
            await asyncio.sleep(_TICK_S)

    async def _tend_once(self) -> None:
        self._waking.expire()
        expired = self._registry.expire()
        if expired:
            logger.warning("no heartbeat from %s for %g s: forgotten", ", ".join(expired), LEASE_S)
        alive = await asyncio.to_thread(proxy_actors.alive_nodes)
        self._nodes = len(alive)
        options = self._registry.options
        nodes = {node_id for node_id, is_head in alive.items() if is_head or options.proxy_location == "EveryNode"}
        if not self._learning.is_expecting:
            self._learning.expect(await asyncio.to_thread(proxy_actors.nodes_with_one, nodes))
        for node_id in nodes - self._proxy_actors.keys() | self._silent_nodes():
            self._proxy_actors[node_id] = await asyncio.to_thread(proxy_actors.create, node_id, options)
        for node_id in self._proxy_actors.keys() - nodes:
            self._proxy_actors.pop(node_id)
            for proxy in self._registry.proxies:
                if proxy.node_id == node_id:
                    self._registry.forget_proxy(proxy.proxy_id)
        silent = self._registry.without_replicas()
        if silent:
            present = await asyncio.to_thread(self._list_deployments)
            if present is not None:
                self._registry.forget(
                    (application, name)
                    for application, name in silent
                    if application not in present or (present[application] and name not in present[application])
                )
        if self._without_serve.note(await asyncio.to_thread(self._has_serve), time.monotonic()):
            logger.warning("Ray Serve has been gone for %g s: the ingress ends", _WITHOUT_SERVE_S)
            await self._stop_proxies()
            await changed_options.forget()
            await asyncio.to_thread(ray.kill, ray.get_runtime_context().current_actor)

    def _silent_nodes(self) -> set[str]:
        """Return the nodes whose proxy is not known, or no longer: it may have been killed for good."""
        now = time.monotonic()
        reporting = {proxy.node_id for proxy in self._registry.proxies}
        for node_id in self._proxy_actors:
            if node_id in reporting:
                self._heard_at[node_id] = now
            else:
                self._heard_at.setdefault(node_id, now)
        silent = {node_id for node_id in self._proxy_actors if now >= self._heard_at[node_id] + _PROXY_PATIENCE_S}
        self._heard_at.update(dict.fromkeys(silent, now))
        return silent

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _acknowledged(self, timeout_s: float) -> bool:
        """Wait until every proxy serves what is true now. Returns False when that takes too long."""
        deadline = time.monotonic() + timeout_s
        # What the proxies have acknowledged of an earlier controller is not known before.
        await self._until(lambda: self._learning.is_over, timeout_s)
        version = self._registry.snapshot.version
        self._notify()
        return await self._until(lambda: self._registry.is_acknowledged(version), deadline - time.monotonic())

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


def create(
    options: GrpcOptions,
    list_deployments: Callable[[], Mapping[str, Container[str]] | None],
    has_serve: Callable[[], bool],
    wake: Wake,
) -> Any:
    """Return a handle to the controller; it is created when there is none. See :class:`Controller`."""
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
            scheduling_strategy="DEFAULT",  # a replica that creates it may live in a placement group
        )
        .remote(options, list_deployments, has_serve, wake)
    )
