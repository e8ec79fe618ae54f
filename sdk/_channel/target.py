"""A deployment as the target of calls on one event loop, and the feed that says where its replicas are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from threading import get_ident
from typing import TYPE_CHECKING, Any

import grpc

from sdk._backend import backend
from sdk._channel.feed import MAX_LINE, DeploymentKey, State, StateChange, decode_change, encode_interest, socket_name
from sdk._channel.replicas import IDLE_S, SWEEP_S, Replicas, connect_locally
from sdk._guard.peer_user import peer_user
from sdk.errors import RpcError

if TYPE_CHECKING:
    from sdk._channel.connection import ReplicaConnection
    from sdk._channel.replicas import Subchannel

logger = logging.getLogger("sdk.handles")

# Seconds that the first call waits for the proxy to say where the replicas are: on a busy machine, and while a proxy
# restarts. After that Ray's handle carries it, with more work and without streams of requests.
_RESOLVE_S = 10.0
# Seconds until the next try to reach the proxy: while it restarts, and without an ingress.
_RETRY_S, _NO_INGRESS_RETRY_S = 0.1, 2.0
# Seconds after which a program on a node without a proxy looks again if there is one.
_DISTANT_S = 30.0
# Seconds after which the proxy of another node, which answers within ten, is taken for gone with its machine.
_ANSWER_S = 20.0


class Target:
    """One deployment.

    Args:
        key: Its application, and its name.
        handle: Ray Serve's handle to it, for calls without the ingress.
        loop: The event loop of its calls.
        node_id: Ray's id of this node.
        report: Called when calls begin or cease to wait for a first replica.

    Attributes:
        is_ready: True if it has replicas.
        is_resolved: True once it is known where its replicas are, or that Ray's handle has to find them.
        waiting: Calls that wait for a replica.
        retries: Number of times that a call was sent again, by reason: ``"refused"``, ``"lost"``.
        thread: The thread of the loop, as ``threading.get_ident`` names it.
    """

    def __init__(
        self,
        key: DeploymentKey,
        handle: Any,
        loop: asyncio.AbstractEventLoop,
        node_id: str,
        report: Callable[[Target], None],
    ) -> None:
        self.key = key
        self.loop = loop
        self.thread = get_ident()
        self.replicas = Replicas(node_id)
        self.is_ready = False
        self.is_resolved = False
        self.waiting = 0
        self.retries: dict[str, int] = {}
        self._handle = handle
        self._report = report
        self._is_known = False
        self._was_known = False
        self._failure = ""
        self._max_waiting = 0
        # Version of the state in the proxy's feed; 0 if it is not from there.
        self._version = 0
        self._changed: asyncio.Event | None = None

    def apply(self, state: State) -> None:
        """Take the deployment's new state, a whole one."""
        self._version = 0
        self.replicas.update(state.addresses)
        self._take(state)

    def change(self, change: StateChange) -> None:
        """Take a change from the proxy's feed.

        Raises:
            ValueError: It changes another state than this one. The feed has to begin again, with whole states.
        """
        if not change.base:
            self.replicas.update(change.state.addresses)
        elif change.base == self._version:
            self.replicas.change(change.state.addresses, change.removed)
        else:
            raise ValueError(f"a change of version {change.base} of {self._name} does not fit version {self._version}")
        self._version = change.version
        self._take(change.state)

    def _take(self, state: State) -> None:
        self.is_resolved = True
        self._is_known, self._failure, self._max_waiting = state.is_known, state.failure, state.max_waiting
        self._was_known = self._was_known or state.is_known
        self.is_ready = len(self.replicas) > 0
        self._notify()

    def give_up(self) -> None:
        """Take that nobody knows where the replicas are: Ray's handle finds them."""
        if not self.is_resolved:
            self.apply(State(*self.key, False))

    async def wait_ready(self, model_id: str) -> Subchannel | None:
        """Wait for a replica, and choose it; return None if Ray's handle has to find one.

        Raises:
            RpcError: The deployment is gone or can't start, or too many calls wait.
        """
        try:
            async with asyncio.timeout(_RESOLVE_S):
                while not self.is_resolved:
                    await self._wait_for_change(None)
        except TimeoutError:
            self.give_up()
        while True:
            if self._is_known:
                replica = self.replicas.choose(self.loop.time(), model_id)
                if replica is not None:
                    return replica
            elif not self._was_known:
                return None
            else:
                raise RpcError(grpc.StatusCode.UNAVAILABLE, f"{self._name} was deleted")
            await self._wait_for_replica()
            if self._failure:
                raise RpcError(grpc.StatusCode.UNAVAILABLE, f"{self._name} can't start: {self._failure}")

    async def _wait_for_replica(self) -> None:
        if 0 < self._max_waiting <= self.waiting:
            raise RpcError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Request dropped due to backpressure: {self.waiting} requests already wait for the first replica of "
                f"{self._name}, which is the limit.",
            )
        self.waiting += 1
        if self.waiting == 1:
            self._report(self)
        try:
            await self._wait_for_change(self.replicas.next_try())
        finally:
            self.waiting -= 1
            if not self.waiting:
                self._report(self)

    async def _wait_for_change(self, until: float | None) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        left = None if until is None or until == float("inf") else max(0.0, until - self.loop.time())
        try:
            await asyncio.wait_for(self._changed.wait(), left)
        except TimeoutError:
            return

    def count_retry(self, reason: str) -> None:
        """Count that a call was sent to another replica.

        Args:
            reason: ``"refused"`` by one that leaves, or ``"lost"`` with the replica.
        """
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    @property
    def _name(self) -> str:
        return f"deployment {self.key[1]!r} of application {self.key[0]!r}"

    def describe_fallback(self) -> str:
        """Return the status details for a call that Ray's handle can't carry."""
        return (
            f"{self._name} can't be called with a stream of requests: it does not run behind the ingress, and Ray "
            "Serve's handles carry one request. Deploy it with @grpc_deployment, and start the ingress"
        )

    def fallback(self, model_id: str) -> ReplicaConnection:
        """Return a connection for one call that Ray's handle carries."""
        connection: ReplicaConnection = backend().ray_connection(self._handle, model_id)
        return connection


class Targets:
    """The deployments that code on one event loop calls, and the connection to the proxy that sends their states.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._node_id = ""
        self._targets: dict[DeploymentKey, Target] = {}
        # Those of them that are not in this process: only they are in the proxy's table.
        self._fed: dict[DeploymentKey, Target] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._distant: Any = None  # the proxy of another node
        self._program_id = ""
        self._task: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._at_end: AsyncGenerator[None, None] | None = None

    def find(self, handle: Any) -> Target:
        """Return the target for a deployment; on the loop.

        Args:
            handle: Ray Serve's handle to it.
        """
        local = local_lookup(handle) if local_lookup is not None else None
        key = (handle.app_name, handle.deployment_name) if local is None else (local.application, local.deployment)
        target = self._targets.get(key)
        if target is None:
            if self._at_end is None:
                self._begin()
            if local is None and self._task is None:
                self._node_id = backend().node_id()
                self._task = self._loop.create_task(self._watch(), context=Context())
            # A deployment of this process is on no node, even if this process was on one of a Ray cluster before.
            node_id = self._node_id if local is None else ""
            target = self._targets[key] = Target(key, handle, self._loop, node_id, self._tell)
            if local is None:
                self._fed[key] = target
                self._tell(target)
        if local is not None and not target.is_ready:
            target.apply(local)
        return target

    def count_retries(self) -> Counter[tuple[str, str, str]]:
        """Return how often calls were sent again, by application, deployment and reason."""
        counted: Counter[tuple[str, str, str]] = Counter()
        for target in list(self._targets.values()):
            for reason, number in list(target.retries.items()):
                counted[*target.key, reason] = number
        return counted

    def close(self) -> None:
        """Close every connection."""
        for timer in self._sweep, self._task:
            if timer is not None:
                timer.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        for target in self._targets.values():
            target.replicas.close()
        if _by_loop.pop(self._loop, None) is not None:
            _retries_of_closed_loops.update(self.count_retries())

    # -- inside -------------------------------------------------------------------------------

    def _begin(self) -> None:
        # asyncio.run closes the loop's async generators at its end; there is no other hook.
        self._at_end = self._close_at_end()
        step = self._at_end.asend(None)
        with contextlib.suppress(StopIteration):  # that is how a coroutine returns
            step.send(None)
        self._sweep = self._loop.call_later(SWEEP_S, self._close_idle)

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()

    def _close_idle(self) -> None:
        before = self._loop.time() - IDLE_S
        for target in self._targets.values():
            target.replicas.close_idle(before)
        self._sweep = self._loop.call_later(SWEEP_S, self._close_idle)

    def _tell(self, target: Target) -> None:
        if target.key not in self._fed:
            return
        if self._writer is not None:
            self._writer.write(encode_interest(target.key, target.waiting))
        elif self._distant is not None:
            self._distant.note(self._program_id, {target.key: target.waiting})

    async def _watch(self) -> None:
        """Read the states of the deployments from a proxy, without end: from that of this node, if it has one."""
        while True:
            delay = _RETRY_S
            try:
                self._enter(backend().node_id())
                await self._read_feed()
            except (OSError, ValueError) as error:
                logger.debug("connecting to the proxy of this node again: %s", error)
                try:
                    delay = await self._look_elsewhere()
                except OSError as unanswered:
                    logger.debug("looking for a proxy again: %s", unanswered)
            await asyncio.sleep(delay)

    def _enter(self, node_id: str) -> None:
        """Take the node of the Ray cluster: a program may leave one and join another."""
        if node_id and node_id != self._node_id:
            self._node_id = node_id
            for target in self._fed.values():
                target.replicas.enter(node_id)

    async def _look_elsewhere(self) -> float:
        """Read the states from the proxy of another node for a while, if this node has none.

        Returns:
            Seconds until the next try to reach the proxy of this node.

        Raises:
            OSError: Ray does not answer.
        """
        if not await asyncio.to_thread(backend().has_ingress):
            for target in list(self._fed.values()):
                target.give_up()
            return _NO_INGRESS_RETRY_S
        distant = await asyncio.to_thread(backend().distant_proxy, self._node_id)
        if distant is not None:
            await self._poll(distant)
        return _RETRY_S

    async def _read_feed(self) -> None:
        """Read the feed of this node's proxy until that closes it.

        Raises:
            OSError: The proxy can't be reached.
        """
        unix = connect_locally(socket_name(self._node_id))
        reader, self._writer = await asyncio.open_unix_connection(sock=unix, limit=MAX_LINE)
        # From here on this proxy says what is held, and another one that knows the name has to send all of it.
        self._program_id = ""
        try:
            _check_peer(self._writer)
            for target in self._fed.values():
                self._tell(target)
            while line := await reader.readline():
                self._apply(line)
        finally:
            self._writer.close()
            self._writer = None

    async def _poll(self, distant: Any) -> None:
        """Ask the proxy of another node for a while, one call at a time, each until something has changed."""
        until = self._loop.time() + _DISTANT_S
        self._distant, self._program_id = distant, self._program_id or uuid.uuid4().hex
        try:
            while self._loop.time() < until:
                interests = {target.key: target.waiting for target in self._fed.values()}
                async with asyncio.timeout(_ANSWER_S):
                    lines = await distant.poll(self._program_id, interests)
                for line in lines:
                    self._apply(line)
        except (OSError, ValueError) as error:
            logger.debug("asking the proxy of another node again: %s", error)
            # For another name the proxy begins with every state: an answer may be lost.
            self._program_id = ""
        finally:
            self._distant = None

    def _apply(self, line: bytes) -> None:
        change = decode_change(line)
        self._fed[change.state.application, change.state.deployment].change(change)


def _check_peer(writer: asyncio.StreamWriter) -> None:
    """Check that the other end runs as this user: any program may listen on an abstract socket.

    Raises:
        PermissionError: It does not.
    """
    user = peer_user(writer.get_extra_info("socket"))
    if user not in (0, os.geteuid()):
        raise PermissionError(f"another user ({user}) listens on the socket of the ingress")


#: Returns the state of a deployment of this very process, for a handle, or None. Set by ``sdk.testing``.
local_lookup: Callable[[Any], State | None] | None = None

_by_loop: dict[asyncio.AbstractEventLoop, Targets] = {}
_retries_of_closed_loops: Counter[tuple[str, str, str]] = Counter()


def count_retries() -> Counter[tuple[str, str, str]]:
    """Return how often calls were sent again, by application, deployment and reason, on all loops so far."""
    counted = Counter(_retries_of_closed_loops)
    for targets in list(_by_loop.values()):  # other threads have loops, too
        counted.update(targets.count_retries())
    return counted


def find_target(loop: asyncio.AbstractEventLoop, handle: Any) -> Target:
    """Return the target for a deployment, for calls on the running event loop."""
    found = _by_loop.get(loop)
    if found is None:
        for closed in [known for known in _by_loop if known.is_closed()]:
            del _by_loop[closed]
        found = _by_loop[loop] = Targets(loop)
    return found.find(handle)
