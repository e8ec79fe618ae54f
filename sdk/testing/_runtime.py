"""Run the applications of a test server, their wire servers and the ingress, on one event loop in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from sdk._channel import compression
from sdk._channel.feed import Address
from sdk._contract.interceptors import make_interceptors
from sdk._ingress.builtin.reflection import serialize_descriptors
from sdk._serve.replica import wire_settings
from sdk._serve.replica_telemetry import trace_calls
from sdk._serve.translation import translate
from sdk._web.http_rules import http_routes
from sdk._web.protocols import serve_web
from sdk._wire.server import WireServer
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from sdk.testing._certificates import write_certificate
from sdk.testing._faults import Faults
from sdk.testing._files import temporary_folder
from sdk.testing._ingress import LocalIngress
from sdk.testing._local_app import LocalApplication, LocalReplica
from sdk.testing._local_calls import ChildCalls
from sdk.testing._serve_patches import patch_serve

if TYPE_CHECKING:
    from pathlib import Path

    from sdk._wire.call import Call
    from sdk.options import GrpcOptions
    from sdk.testing._runtime_protocol import ServerRuntime

T = TypeVar("T")

logger = logging.getLogger("sdk.testing")

# Seconds to wait for cancelled code of the applications to clean up when the server stops.
_CANCEL_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 15.0


class LoopThread:
    """A thread that runs an event loop until :meth:`stop`, which also cleans up after it."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sdk-testing", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """Cancel the running tasks, end the thread and wait for it; a thread that is blocked is abandoned."""
        with contextlib.suppress(RuntimeError):  # it has stopped already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_CANCEL_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_S)
        await self.loop.shutdown_asyncgens()


class Runtime:
    """The applications, wire servers and ingress of one test server.

    Args:
        targets: Applications by name.
        options: Options of the ingress.
        tls: Create a certificate for the ingress.
    """

    def __init__(self, targets: Mapping[str, Any], options: GrpcOptions, *, tls: bool = False) -> None:
        self._targets = targets
        self.options = options
        self._tls = tls
        self._folder: Path | None = None
        self.thread: LoopThread | None = None
        self.applications: dict[str, LocalApplication] = {}
        self.faults = Faults()
        self.ingress: LocalIngress
        self._wires: dict[LocalReplica, WireServer] = {}
        self._starting: Future[None] = Future()
        self._stack = contextlib.ExitStack()

    # -- called in the test's thread ----------------------------------------------------------

    def start(self) -> None:
        """Start all parts; if one fails, stop them all and raise its error."""
        try:
            self._stack.enter_context(patch_serve())
            self._folder = self._stack.enter_context(temporary_folder())
            if self._tls:
                certificate, key = write_certificate(self._folder)
                self.options = replace(self.options, tls_certificate=certificate, tls_private_key=key)
            self.thread = LoopThread()
            self._stack.callback(self.thread.stop)
            self._starting = self.thread.start(self._start())
            self._starting.result()
        except BaseException:  # Ctrl-C too
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all parts; do nothing the second time."""
        if self.thread is None:
            self._stack.close()
            return
        thread, self.thread = self.thread, None
        self._starting.cancel()  # after an interrupt, a constructor may still be waiting
        try:
            thread.start(self._stop()).result(_STOP_TIMEOUT_S)
        except TimeoutError:
            logger.error("code of the applications blocks the event loop or does not end: the test server is abandoned")
            if hasattr(self, "ingress"):
                self.ingress.kill()
        finally:
            self._stack.close()

    # -- on the loop --------------------------------------------------------------------------

    async def _start(self) -> None:
        assert self._folder is not None
        loop = asyncio.get_running_loop()
        children = ChildCalls()
        for name, target in self._targets.items():
            self.applications[name] = LocalApplication(target, name, self.applications, loop, children)
        self.ingress = LocalIngress(self.options, self._folder)
        await self.ingress.start()
        for application in self.applications.values():
            for replica in application.replicas.values():
                await replica.start()
        await self._publish()

    async def _publish(self) -> None:
        descriptors: dict[str, bytes] = {}
        applications = []
        for name, application in sorted(self.applications.items()):
            deployments = []
            for replica in application.replicas.values():
                if replica.definition is None:
                    continue
                wire = self._wires[replica] = self._wire_server(replica)
                port, socket = await wire.listen("127.0.0.1"), await wire.listen_locally()
                endpoint = Endpoint(f"{name}#{replica.name}", "127.0.0.1", port, "", socket)
                replica.state = replica.state._replace(
                    is_known=True, addresses=(Address(endpoint.replica_id, endpoint.host, port, "", socket),)
                )
                if not replica.is_exposed:
                    continue
                services = replica.definition.services
                digest, data = serialize_descriptors(services)
                descriptors[digest] = data
                deployments.append(
                    Deployment(
                        replica.name,
                        tuple(service.full_name for service in services),
                        (endpoint,),
                        digest,
                        http_routes=http_routes(services),
                    )
                )
            if deployments:
                applications.append(Application(name, tuple(deployments)))
        compression.max_message_length = self.options.max_receive_message_length
        snapshot = Snapshot(1, tuple(applications), self.options.route_by_service, access=self.options.access)
        await self.ingress.publish(snapshot, descriptors)

    def _wire_server(self, replica: LocalReplica) -> WireServer:
        definition = replica.definition
        assert definition is not None
        bindings = definition.bindings(replica.instance)
        interceptors = make_interceptors(definition.cls_name, definition.interceptors)
        server = WireServer(
            bindings,
            wire_settings(replica.deployment, self.options, replica.application),
            on_start=replica.enter_call,
            on_cancel=replica.leave_call,
            on_exit=_log_exit,
            translate_error=translate,
            application=replica.application,
            compression=definition.compression,
            interceptors=interceptors,
        )
        trace_calls(server, replica.application, replica.name, interceptors)
        serve_web(server)
        self.faults.install(server, replica.application, bindings, definition.compression, interceptors)
        return server

    async def _stop(self) -> None:
        try:
            for wire in self._wires.values():
                await wire.drain(quiet_s=0, grace_s=0)
            for application in reversed(self.applications.values()):
                for replica in reversed(application.replicas.values()):
                    await replica.stop()
        finally:
            if hasattr(self, "ingress"):
                await self.ingress.stop()


def _log_exit(call: Call, error: BaseException) -> None:
    logger.error(
        "the handler of %s raised %r: on Ray its replica would end now, here the test server continues",
        call.path.decode(),
        error,
    )


if TYPE_CHECKING:
    _checked: type[ServerRuntime] = Runtime
