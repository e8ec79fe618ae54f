"""The proxy actor, one a node: it runs Envoy, tells it the routing table over ADS, and answers what has no route."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from sdk._ingress.builtin.services import BuiltIn
from sdk._ingress.cluster import find_controller
from sdk._ingress.envoy.adoption import SupervisedEnvoy, Table, adopt, keep_table, kept_table, make_plan, start
from sdk._ingress.envoy.certificates import check_certificates
from sdk._ingress.envoy.drain import say_goodbye
from sdk._ingress.envoy.listening import FALLBACK, HOLD, address_text, listener_config, tls_config, unix_server
from sdk._ingress.envoy.process import check_port, envoy_command, find_envoy, last_words
from sdk._ingress.node_drain import is_draining
from sdk._ingress.registry import ProxyState
from sdk._ingress.scale_to_zero.gate import Gate
from sdk._xds.ads_server import AdsServer
from sdk._xds.bootstrap import build_bootstrap
from sdk._xds.rejection import Isolation
from sdk._xds.resources import build
from sdk._xds.snapshot import Snapshot
from sdk._xds.tls import write_secrets
from sdk.errors import IngressError
from sdk.options import GrpcOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk._ingress.envoy.supervisor import Plan
    from sdk._ingress.scale_to_zero.waiting_calls import Key

logger = logging.getLogger("sdk.ingress")

# Seconds until Envoy must have acknowledged a snapshot before the proxy reports it as a problem.
_PUBLISH_PATIENCE_S = 10.0
_RETRY_S = 0.2
# Seconds until a snapshot that Envoy did not take is tried again; a newer one is tried then, too.
_REFUSED_RETRY_S = 1.0
# Seconds that the kernel gets to end an Envoy whose supervisor was killed.
_ORPHAN_PATIENCE_S = 5.0
# Seconds between two looks whether Ray drains the node.
_DRAIN_LOOK_S = 2.0
# Seconds without any controller, not even one that is being restarted, after which nobody needs this proxy.
_ABANDONED_S = 30.0


class Proxy:
    """The proxy actor's class; the controller makes one for each node.

    Args:
        node_id: Ray's id of the node that it runs on.
        options: Options of the ingress. Those that change while it runs are in the snapshots; after a restart of the
            actor these are the first ones again.
    """

    async def __init__(self, node_id: str, options: GrpcOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        self._options = options
        self._state = ProxyState(uuid.uuid4().hex, node_id, address_text(options.host, options.port))
        self._snapshot: Snapshot | None = None
        # What an adopted Envoy had from its former proxy.
        self._kept: Table | None = None
        self._folder = Path(tempfile.gettempdir(), f"sdk-ingress-{node_id[:12]}")
        self._ads: AdsServer | None = None
        self._fallback: Any = None
        self._hold: Any = None
        self._gate = Gate(self._tell_who_waits)
        self._isolation = Isolation(self._push)
        self._built_in = BuiltIn(self._in_force, self._fetch_descriptors)
        self._envoy: SupervisedEnvoy | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        try:
            check_certificates(options)
            plan, bootstrap = self._plan()
            if not await self._adopt(plan):
                await self._wait_for_port()
                self._make_folder(bootstrap)
            self._ads = AdsServer(str(self._folder / "ads.sock"))
            await self._ads.start()
            await self._start_fallback()
            await self._start_gate()
            self._tasks.append(loop.create_task(self._attend_envoy(plan)))
        except (IngressError, OSError) as error:
            self._change(problem=str(error))
        # What keeps the proxy from serving is reported to the controller, not raised: Ray would try again for ever.
        self._tasks += [loop.create_task(task) for task in (self._follow(), self._report(), self._heed_drain())]

    async def stop(self) -> None:
        """End Envoy and everything else, and remove what was written."""
        if self._confirming is not None:
            self._tasks.append(self._confirming)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._built_in.drain()
        if self._envoy is not None:
            await say_goodbye(self._folder / "admin.sock")
            await self._envoy.stop()
        for server in self._fallback, self._hold:
            if server is not None:
                await server.stop(None)
        if self._ads is not None:
            await self._ads.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- inside -------------------------------------------------------------------------------

    def _plan(self) -> tuple[Plan, bytes]:
        """Return how Envoy is started, and the content of its bootstrap file."""
        bootstrap = build_bootstrap(
            node_id=self._state.node_id,
            ads_socket=str(self._folder / "ads.sock"),
            admin_socket=str(self._folder / "admin.sock"),
        ).SerializeToString(deterministic=True)
        command = envoy_command(
            find_envoy(), self._folder / "bootstrap.pb", self._folder / "envoy.log", self._options.envoy_concurrency
        )
        # An Envoy whose ingress has other live options is the same.
        return make_plan(command, bootstrap, self._options.with_live_of(GrpcOptions())), bootstrap

    async def _adopt(self, plan: Plan) -> bool:
        """Take over the Envoy that an earlier proxy actor has left, with what it serves."""
        found = await adopt(self._folder, plan)
        if found is None:
            return False
        self._envoy, self._kept = found, kept_table(self._folder)
        self._snapshot = self._kept.published if self._kept is not None else None
        version = self._snapshot.version if self._snapshot is not None else 0
        # Not its version: it may have been started again while nobody was there to tell it anything.
        self._change(envoy_pid=found.report.envoy_pid)
        logger.info("adopted Envoy %d with version %d of the routing table", found.report.envoy_pid, version)
        return True

    async def _wait_for_port(self) -> None:
        """Make sure that the port is free; an Envoy of this node that was replaced may need a moment to end.

        Raises:
            IngressError: Something else listens there.
        """
        deadline = time.monotonic() + (_ORPHAN_PATIENCE_S if self._folder.exists() else 0)
        while True:
            try:
                return check_port(self._options.host, self._options.port)
            except IngressError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)

    def _make_folder(self, bootstrap: bytes) -> None:
        """Make the folder for sockets and logs anew; what is left there serves nobody.

        Its name is short, because the path of a unix socket has at most 107 bytes. It is private, because who can open
        Envoy's admin socket can stop it.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        (self._folder / "bootstrap.pb").write_bytes(bootstrap)
        tls = tls_config(self._options, self._folder)
        if tls is not None:
            write_secrets(tls)

    async def _start_fallback(self) -> None:
        self._fallback = unix_server(self._built_in.generic_handler(), self._folder / FALLBACK)
        await self._fallback.start()

    async def _start_gate(self) -> None:
        self._hold = unix_server(self._gate.generic_handler(), self._folder / HOLD)
        await self._hold.start()
        self._tasks.append(asyncio.get_running_loop().create_task(self._gate.keep_reporting()))

    async def _tell_who_waits(self, counts: Mapping[Key, int]) -> Mapping[Key, str]:
        controller = await asyncio.to_thread(find_controller)
        if controller is None:
            return {}
        troubles: Mapping[Key, str] = await controller.waiting.remote(self._state.proxy_id, counts)
        return troubles

    async def _attend_envoy(self, plan: Plan) -> None:
        """Follow what becomes of Envoy, for ever. Its supervisor starts it again; without one, another is started."""
        while True:
            if self._envoy is not None:
                self._change(envoy_pid=self._envoy.report.envoy_pid)
                async for report in self._envoy.reports():
                    if report.envoy_pid:
                        self._change(envoy_pid=report.envoy_pid)
                    else:
                        self._lose_envoy()
                        logger.error(
                            "Envoy ended with exit code %s and is started again: %s", report.exit_code, self._words()
                        )
                self._envoy.leave()
                self._envoy = None
                self._lose_envoy()
                logger.error("Envoy's supervisor ended, and Envoy with it: both are started again")
            try:
                self._envoy = await start(self._folder, plan)
            except OSError as error:
                logger.error("Envoy can't be started: %s; trying again", error)
                await asyncio.sleep(_RETRY_S)

    def _lose_envoy(self) -> None:
        """Take note that Envoy is dead: the next one serves nothing before it has acknowledged the table."""
        self._change(envoy_pid=0, version=0)
        if self._ads is not None:
            self._ads.disconnect()
        if self._confirming is not None:
            self._confirming.cancel()
        if self._snapshot is not None:
            self._confirming = asyncio.get_running_loop().create_task(self._confirm())

    async def _confirm(self) -> None:
        """Report the table's version once an Envoy that was started again serves it."""
        assert self._ads is not None
        assert self._snapshot is not None
        while True:
            try:
                await asyncio.wait_for(self._ads.settled(), _PUBLISH_PATIENCE_S)
            except TimeoutError:  # each wait may fail by itself
                self._fail_to_acknowledge()
            else:
                self._change(version=self._snapshot.version, problem="")
                return

    async def _follow(self) -> None:
        """Ask the controller for news and publish it, until there is no controller any more."""
        heard = time.monotonic()
        while time.monotonic() < heard + _ABANDONED_S:
            try:
                if self._kept is not None and self._isolation.in_force is None:
                    # The adopted Envoy has it. One that is started before the controller answers must get it, too.
                    for table in dict.fromkeys(self._kept):
                        await self._publish(table)
                controller = await asyncio.to_thread(find_controller)
                while controller is not None:
                    heard = time.monotonic()
                    snapshot = await controller.watch.remote(self._state, self._snapshot)
                    if snapshot is not None and not self._is_broken:
                        await self._publish(snapshot)
                    elif self._snapshot is not None and self._isolation.is_retry_due():
                        await self._publish(self._snapshot)
                    if snapshot is not None and self._snapshot != snapshot:
                        await asyncio.sleep(_REFUSED_RETRY_S)
            except ray.exceptions.RayError as error:
                # The controller is being restarted. Envoy serves what it has.
                heard = time.monotonic()
                logger.warning("the ingress controller does not answer (%s); asking again", type(error).__name__)
            except Exception:  # a proxy that no longer follows would serve an old table for ever
                logger.exception("following the ingress controller failed; asking again")
            await asyncio.sleep(_RETRY_S)
        logger.warning("there has been no ingress controller for %g s: this proxy stops", _ABANDONED_S)
        self._abandoning = asyncio.get_running_loop().create_task(self._abandon())

    async def _abandon(self) -> None:
        await self.stop()
        await asyncio.to_thread(ray.kill, ray.get_runtime_context().current_actor)

    async def _heed_drain(self) -> None:
        """Tell load balancers when Ray is about to take this node away."""
        while True:
            try:
                self._built_in.drain(await asyncio.to_thread(is_draining, self._state.node_id))
            except Exception as error:  # Ray's own, of several kinds, while its head is being restarted
                logger.debug("Ray does not say whether this node is being drained: %s", error)
            await asyncio.sleep(_DRAIN_LOOK_S)

    async def _report(self) -> None:
        """Tell the controller at once what changes here; it hears the same when the proxy asks for news."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                controller = await asyncio.to_thread(find_controller)
                if controller is not None:
                    await controller.report.remote(self._state)
            except ray.exceptions.RayError as error:
                logger.debug("the ingress controller could not be told: %s", error)

    @property
    def _is_broken(self) -> bool:
        return self._ads is None or self._fallback is None

    async def _publish(self, snapshot: Snapshot) -> None:
        try:
            is_complete = await self._isolation.publish(snapshot)
        except TimeoutError:
            self._fail_to_acknowledge()
        except IngressError as error:
            self._fail(str(error))
        else:
            self._built_in.notify()
            if not is_complete:
                return
            # Only now: what Envoy has not acknowledged is asked for, and published, again.
            self._snapshot = snapshot
            refusals = self._isolation.refusals
            for refusal in sorted(set(refusals) - set(self._state.refusals)):
                logger.error("the newest state of %s", refusal)
            # Before it is reported: what others believe to be gone must not come back with the next actor.
            keep_table(self._folder, Table(self._in_force(), snapshot))
            self._change(version=snapshot.version, problem="", refusals=refusals)

    async def _push(self, snapshot: Snapshot) -> None:
        """Return when Envoy has acknowledged this routing table."""
        assert self._ads is not None
        config = listener_config(self._options, self._folder, can_hold=True)
        self._gate.expect(snapshot)
        resources = build(snapshot.seen_from(self._state.node_id), config)
        await asyncio.wait_for(self._ads.publish(resources), _PUBLISH_PATIENCE_S)
        self._gate.serve(snapshot)

    def _in_force(self) -> Snapshot:
        """Return the routing table that Envoy serves."""
        return self._isolation.in_force or (self._kept.in_force if self._kept is not None else Snapshot(0))

    def _change(self, **changes: Any) -> None:
        """Note a change of the state, to be reported at once."""
        state = replace(self._state, **changes)
        if state != self._state:
            self._state = state
            self._changed.set()

    def _fail(self, problem: str) -> None:
        if problem != self._state.problem:
            logger.error("%s", problem)
        self._change(problem=problem)

    def _fail_to_acknowledge(self) -> None:
        problem = f"Envoy did not acknowledge the routing table within {_PUBLISH_PATIENCE_S:g} s. {self._words()}"
        self._fail(problem.rstrip())

    def _words(self) -> str:
        return last_words(self._folder / "envoy.log")

    async def _fetch_descriptors(self, digest: str) -> bytes | None:
        controller = await asyncio.to_thread(find_controller)
        descriptors: bytes | None = controller and await controller.descriptors.remote(digest)
        return descriptors
