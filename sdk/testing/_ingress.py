"""Run Envoy in front of the wire servers of this process, as a proxy actor does on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk._ingress.builtin.services import BuiltinServices
from sdk._ingress.credentials import Credentials
from sdk._ingress.envoy.certificates import check_certificates
from sdk._ingress.envoy.listening import FALLBACK_SOCKET, listener_config, write_secret_files
from sdk._ingress.envoy.process import EnvoyProcess, find_envoy
from sdk._ingress.own_answers import add_span
from sdk._xds.ads_server import AdsServer
from sdk._xds.bootstrap import build_bootstrap
from sdk._xds.resources import ResourceBuilder
from sdk._xds.snapshot import Snapshot
from sdk.errors import IngressError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sdk.options import GrpcOptions

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0


class LocalIngress:
    """One Envoy with its control plane and the built-in services.

    Args:
        options: Options of the ingress. It listens on a free port of 127.0.0.1 and ignores their address.
        folder: An empty folder for sockets and files.
    """

    def __init__(self, options: GrpcOptions, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._snapshot = Snapshot(0)
        self._descriptors: Mapping[str, bytes] = {}
        self._built_in = BuiltinServices(lambda: self._snapshot, self._fetch_descriptors)
        self._builder = ResourceBuilder("")
        self._ads = AdsServer(str(folder / "ads.sock"), add_span)
        self._fallback = self._built_in.server(options)
        self._credentials = Credentials()
        self._watching: asyncio.Task[None] | None = None
        self._envoy: EnvoyProcess | None = None
        # Bound but not listening, it reserves the port for Envoy.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((_HOST, 0))

    @property
    def port(self) -> int:
        """The port that Envoy listens on."""
        port: int = self._reserved.getsockname()[1]
        return port

    @property
    def target(self) -> str:
        """The address for clients."""
        return f"{_HOST}:{self.port}"

    @property
    def envoy_pid(self) -> int:
        """Envoy's process id; 0 when it does not run."""
        return 0 if self._envoy is None else self._envoy.pid

    async def start(self) -> None:
        """Start Envoy; it listens after the first :meth:`publish`.

        Raises:
            IngressError: Envoy is missing, or a file for TLS is invalid.
        """
        binary = find_envoy()
        check_certificates(self._options)
        await self._ads.start()
        bootstrap = build_bootstrap(
            node_id="sdk-testing",
            ads_socket=str(self._folder / "ads.sock"),
            admin_socket=str(self._folder / "admin.sock"),
            max_memory_bytes=self._options.max_envoy_memory_bytes,
        )
        (self._folder / "bootstrap.pb").write_bytes(bootstrap.SerializeToString())
        self._envoy = EnvoyProcess(
            binary, self._folder / "bootstrap.pb", self._folder / "envoy.log", self._options.envoy_concurrency or 1
        )
        await self._fallback.listen_at(str(self._folder / FALLBACK_SOCKET))

    async def publish(self, snapshot: Snapshot, descriptors: Mapping[str, bytes]) -> None:
        """Publish a routing table, and return when Envoy has acknowledged it.

        Args:
            snapshot: The routing table.
            descriptors: Digest → serialized ``FileDescriptorSet``, for reflection.

        Raises:
            IngressError: Envoy exited, or rejected its configuration.
        """
        assert self._envoy is not None
        config = listener_config(replace(self._options, host=_HOST, port=self.port), self._folder, has_gate=False)
        write_secret_files(config)
        keys = await self._credentials.load(snapshot.access)
        if self._credentials.problem and self._watching is None:  # later the last valid keys stay in force
            raise IngressError(self._credentials.problem)
        if snapshot.access is not None and self._watching is None:
            self._watching = asyncio.ensure_future(self._credentials.watch(self._on_new_keys))
        published = asyncio.ensure_future(self._ads.publish(self._builder.build(snapshot, config, keys)))
        ended = asyncio.ensure_future(self._envoy.wait())
        try:
            await asyncio.wait({published, ended}, timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not published.done():
                what = "exited" if ended.done() else "did not listen in time"
                raise IngressError(f"Envoy {what}: {self._envoy.log_tail() or 'it left no log'}")
            published.result()
        finally:
            published.cancel()
            ended.cancel()
            await asyncio.gather(published, ended, return_exceptions=True)
        self._snapshot, self._descriptors = snapshot, descriptors
        self._built_in.notify()

    async def _on_new_keys(self) -> None:
        await self.publish(self._snapshot, self._descriptors)

    async def stop(self) -> None:
        """Stop Envoy, the control plane and the built-in services."""
        self._built_in.drain()
        if self._watching is not None:
            self._watching.cancel()
        if self._envoy is not None:
            await self._envoy.stop()
        await self._fallback.drain(quiet_s=0, grace_s=0)
        await self._ads.stop()
        self._reserved.close()

    def kill(self) -> None:
        """Kill Envoy from another thread, if the event loop does not respond any more."""
        if self._envoy is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._envoy.pid, signal.SIGKILL)

    async def _fetch_descriptors(self, digest: str) -> bytes | None:
        return self._descriptors.get(digest)
