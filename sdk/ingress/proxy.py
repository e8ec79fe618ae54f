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

import grpc.aio
import ray

from sdk.errors import IngressError
from sdk.ingress.actors import find_controller
from sdk.ingress.builtin import BuiltIn
from sdk.ingress.certificates import check_certificates
from sdk.ingress.envoy import EnvoyProcess, check_port, find_envoy
from sdk.ingress.gate import Gate
from sdk.ingress.registry import ProxyState
from sdk.xds.bootstrap import build_bootstrap
from sdk.xds.listener import ListenerConfig
from sdk.xds.resources import build
from sdk.xds.server import AdsServer
from sdk.xds.snapshot import Snapshot
from sdk.xds.tls import TlsConfig, write_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk.ingress.options import GrpcOptions
    from sdk.ingress.waiting import Key

logger = logging.getLogger("sdk.ingress")

# Seconds until Envoy must have acknowledged a snapshot before the proxy reports it as a problem.
_PUBLISH_PATIENCE_S = 10.0
_RETRY_S = 0.2
# Seconds until a snapshot that Envoy did not take is tried again; a newer one is tried then, too.
_REFUSED_RETRY_S = 1.0
# Seconds that the kernel gets to end the Envoy of a proxy that was killed.
_ORPHAN_PATIENCE_S = 5.0
# A burst of calls without a route must be answered, not cancelled (grpcio cancels above 1,000 by default).
_FALLBACK_OPTIONS = [
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 2_000_000),
]


class Proxy:
    """The proxy actor's class; the controller makes one for each node.

    Args:
        node_id: Ray's id of the node that it runs on.
        options: Options of the ingress.
    """

    async def __init__(self, node_id: str, options: GrpcOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        self._options = options
        self._state = ProxyState(uuid.uuid4().hex, node_id, f"{options.host}:{options.port}")
        self._snapshot: Snapshot | None = None
        self._folder = Path(tempfile.gettempdir(), f"sdk-ingress-{node_id[:12]}")
        self._tls = _tls_config(options, self._folder)
        self._ads: AdsServer | None = None
        self._fallback: Any = None
        self._hold: Any = None
        self._gate = Gate(self._tell_who_waits, request_timeout_s=options.request_timeout_s)
        self._built_in = BuiltIn(lambda: self._snapshot or Snapshot(0), self._fetch_descriptors)
        self._envoy: EnvoyProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        try:
            binary = find_envoy()
            check_certificates(options)
            await self._wait_for_port()
            self._make_folder()
            if self._tls is not None:
                write_secrets(self._tls)
            self._ads = AdsServer(str(self._folder / "ads.sock"))
            await self._ads.start()
            await self._start_fallback()
            await self._start_gate()
            bootstrap = build_bootstrap(
                node_id=self._state.node_id,
                ads_socket=str(self._folder / "ads.sock"),
                admin_socket=str(self._folder / "admin.sock"),
            )
            (self._folder / "bootstrap.pb").write_bytes(bootstrap.SerializeToString())
            self._tasks.append(asyncio.get_running_loop().create_task(self._run_envoy(binary)))
        except (IngressError, OSError) as error:
            self._state = replace(self._state, problem=str(error))
        # What keeps the proxy from serving is reported to the controller, not raised: Ray would try again for ever.
        self._tasks.append(asyncio.get_running_loop().create_task(self._follow()))

    async def stop(self) -> None:
        """End Envoy and everything else, and remove what was written."""
        self._built_in.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._envoy is not None:
            await self._envoy.stop()
        for server in self._fallback, self._hold:
            if server is not None:
                await server.stop(None)
        if self._ads is not None:
            await self._ads.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- inside -------------------------------------------------------------------------------

    async def _wait_for_port(self) -> None:
        """Make sure that the port is free; the Envoy of a proxy of this node that was killed may need a moment to end.

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

    def _make_folder(self) -> None:
        """Make the folder for sockets and logs anew; a proxy of this node that was killed has left its own.

        Its name is short, because the path of a unix socket has at most 107 bytes. It is private, because who can open
        Envoy's admin socket can stop it.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)

    async def _start_fallback(self) -> None:
        self._fallback = grpc.aio.server(options=_FALLBACK_OPTIONS)
        self._fallback.add_generic_rpc_handlers((self._built_in.generic_handler(),))
        self._fallback.add_insecure_port(f"unix:{self._folder / 'fallback.sock'}")
        await self._fallback.start()

    async def _start_gate(self) -> None:
        self._hold = grpc.aio.server(options=_FALLBACK_OPTIONS)
        self._hold.add_generic_rpc_handlers((self._gate.generic_handler(),))
        self._hold.add_insecure_port(f"unix:{self._folder / 'hold.sock'}")
        await self._hold.start()
        self._tasks.append(asyncio.get_running_loop().create_task(self._gate.keep_reporting()))

    async def _tell_who_waits(self, counts: Mapping[Key, int]) -> Mapping[Key, str]:
        controller = await asyncio.to_thread(find_controller)
        if controller is None:
            return {}
        troubles: Mapping[Key, str] = await controller.waiting.remote(self._state.proxy_id, counts)
        return troubles

    async def _run_envoy(self, binary: Path) -> None:
        """Keep Envoy running, for ever."""
        while True:
            try:
                self._envoy = EnvoyProcess(
                    binary, self._folder / "bootstrap.pb", self._folder / "envoy.log", self._options.envoy_concurrency
                )
                self._state = replace(self._state, envoy_pid=self._envoy.pid)
                code = await self._envoy.wait()
                logger.error("Envoy ended with exit code %d and is started again: %s", code, self._envoy.last_words())
            except OSError as error:
                logger.error("Envoy can't be started: %s; trying again", error)
            self._state = replace(self._state, envoy_pid=0)
            await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        """Ask the controller for news and publish it, for ever."""
        while True:
            try:
                controller = await asyncio.to_thread(find_controller)
                while controller is not None:
                    snapshot = await controller.watch.remote(self._state, self._snapshot)
                    if snapshot is not None and not self._is_broken:
                        await self._publish(snapshot)
                    if snapshot is not None and self._snapshot != snapshot:
                        await asyncio.sleep(_REFUSED_RETRY_S)
            except ray.exceptions.RayError as error:
                # The controller is being restarted. Envoy serves what it has.
                logger.warning("the ingress controller does not answer (%s); asking again", type(error).__name__)
            except Exception:  # a proxy that no longer follows would serve an old table for ever
                logger.exception("following the ingress controller failed; asking again")
            await asyncio.sleep(_RETRY_S)

    @property
    def _is_broken(self) -> bool:
        return self._ads is None or self._fallback is None

    async def _publish(self, snapshot: Snapshot) -> None:
        assert self._ads is not None
        config = ListenerConfig(
            fallback_socket=str(self._folder / "fallback.sock"),
            host=self._options.host,
            port=self._options.port,
            max_concurrent_streams=self._options.max_concurrent_streams,
            max_metadata_bytes=self._options.max_metadata_bytes,
            tls=self._tls,
            hold_socket=str(self._folder / "hold.sock"),
        )
        self._gate.expect(snapshot)
        try:
            await asyncio.wait_for(
                self._ads.publish(build(snapshot.seen_from(self._state.node_id), config)), _PUBLISH_PATIENCE_S
            )
        except asyncio.TimeoutError:
            log = self._envoy.last_words() if self._envoy is not None else ""
            self._report(
                f"Envoy did not acknowledge the routing table within {_PUBLISH_PATIENCE_S:g} s. {log}".rstrip()
            )
        except IngressError as error:
            self._report(str(error))
        else:
            # Only now: what Envoy has not acknowledged is asked for, and published, again.
            self._snapshot = snapshot
            self._gate.serve(snapshot)
            self._state = replace(self._state, version=snapshot.version, problem="")
            self._built_in.notify()

    def _report(self, problem: str) -> None:
        if problem != self._state.problem:
            logger.error("%s", problem)
        self._state = replace(self._state, problem=problem)

    async def _fetch_descriptors(self, digest: str) -> bytes | None:
        controller = await asyncio.to_thread(find_controller)
        descriptors: bytes | None = controller and await controller.descriptors.remote(digest)
        return descriptors


def _tls_config(options: GrpcOptions, folder: Path) -> TlsConfig | None:
    if options.tls_certificate is None or options.tls_private_key is None:
        return None
    return TlsConfig(
        options.tls_certificate, options.tls_private_key, str(folder / "secrets"), client_ca=options.tls_client_ca
    )
