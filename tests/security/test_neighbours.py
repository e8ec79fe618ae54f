"""A neighbour: a process in another network namespace, as on another machine of the network. Needs root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdk._guard.between_nodes import UNGUARDED, BetweenNodes
from sdk._replica_protocol import HEALTH_CHECK_PATH, NODE_SECRET_HEADER
from sdk._wire.server import WireServer
from tests.security.test_between_nodes import FORGED, PATH, STRANGERS, TOKEN, mutual_tls, seen, who_am_i_binding
from tests.support.envoy_rig import rig
from tests.support.loops import PATIENCE_S
from tests.support.namespaces import machines

# Reads requests as JSON lines, [address, port or the name of an abstract socket, bytes, folder of certificates], and
# prints what it gets for each one.
NEIGHBOUR = f"""
import json, socket, ssl, sys
for line in sys.stdin:
    host, port, data, certificates = json.loads(line)
    answer, peer = b"", socket.socket(socket.AF_UNIX if isinstance(port, str) else socket.AF_INET)
    peer.settimeout({PATIENCE_S})
    try:
        peer.connect(chr(0) + port if isinstance(port, str) else (host, port))
        if certificates is not None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if certificates:
                context.load_cert_chain(certificates + "/node.crt", certificates + "/node.key")
            peer = context.wrap_socket(peer)
        peer.sendall(data.encode("latin-1"))
        while not answer.endswith(b"made\\r\\n\\r\\n") and (piece := peer.recv(4096)):
            answer += piece
        peer.close()
    except OSError as error:
        answer = answer or type(error).__name__.encode()
    print(json.dumps(answer.decode("latin-1")), flush=True)
"""


def request(headers: dict[str, str]) -> str:
    lines = [f"POST {PATH} HTTP/1.1", "host: x", "content-type: application/grpc", "connection: close"]
    lines += ["request_id: made", "content-length: 5", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]) + "\0" * 5


class Neighbour:
    """A process in another network.

    Args:
        namespace: Name of its namespace.
        address: The address by which it reaches this machine.
    """

    def __init__(self, namespace: str, address: str) -> None:
        self.address = address
        command = ["ip", "netns", "exec", namespace, sys.executable, "-I", "-S", "-c", NEIGHBOUR]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    async def ask(self, port: int | str, data: str, certificates: str | None = None) -> bytes:
        """Return what it gets from a port of this machine, or the name of the error.

        Args:
            port: The port, or the name of an abstract unix socket.
            data: What it sends.
            certificates: The folder of its certificate; empty for TLS without one, None for no TLS.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([self.address, port, data, certificates]) + "\n")
        self._process.stdin.flush()
        answer: str = json.loads(await asyncio.to_thread(self._process.stdout.readline))
        return answer.encode("latin-1")

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def neighbour() -> Iterator[Neighbour]:
    try:
        made = machines(1)
        here, ((namespace, _),) = made.__enter__()
    except OSError as error:
        pytest.skip(f"no network namespace can be made: {error}")
    try:
        it = Neighbour(namespace, here)
        yield it
        it.end()
    finally:
        made.__exit__(None, None, None)


@contextlib.asynccontextmanager
async def serving(address: str, guard: BetweenNodes) -> AsyncIterator[tuple[int, str]]:
    """Serve on an address of the network and on a unix socket; yield the port and the name of the socket."""
    server = WireServer([who_am_i_binding()], guard=guard)
    yield await server.listen(address), await server.listen_locally()
    await server.drain(quiet_s=0, grace_s=0, linger_s=PATIENCE_S)  # until its end of each connection is closed


async def test_without_a_guard_it_is_nobody(neighbour: Neighbour) -> None:
    async with serving(neighbour.address, UNGUARDED) as (port, socket):
        assert seen(await neighbour.ask(port, request(FORGED))) == [None, [], {}, ["request_id"]]
        assert await neighbour.ask(socket, request(FORGED)) == b"ConnectionRefusedError", "sockets are of one network"


async def test_without_the_secret_it_is_refused(neighbour: Neighbour) -> None:
    async with serving(neighbour.address, TOKEN) as (port, _):
        for secret in ({}, {NODE_SECRET_HEADER: ""}, {NODE_SECRET_HEADER: "0" * 64}):
            answer = await neighbour.ask(port, request({**FORGED, **secret}))
            assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert seen(await neighbour.ask(port, request({NODE_SECRET_HEADER: TOKEN.secret}))), "only the secret is needed"


async def test_without_a_certificate_of_ray_it_is_refused(neighbour: Neighbour, tmp_path: Path) -> None:
    mutual_tls(tmp_path / "theirs", STRANGERS)
    probe = f"GET {HEALTH_CHECK_PATH} HTTP/1.1\r\nhost: x\r\n\r\n"
    async with serving(neighbour.address, mutual_tls(tmp_path / "ours")) as (port, _):
        for certificates in (None, "", str(tmp_path / "theirs")):
            for data in (request(FORGED), probe):
                assert b"HTTP" not in await neighbour.ask(port, data, certificates)
        assert seen(await neighbour.ask(port, request({}), str(tmp_path / "ours")))


async def test_it_reaches_neither_envoy_nor_its_control_plane(neighbour: Neighbour) -> None:
    """The port of clients is on 127.0.0.1 unless the options say otherwise; all other sockets are files."""
    async with rig("one") as it:
        await it.publish({"app": {"d": (["demo.Greeter"], ["one"])}})
        assert await neighbour.ask(it.port, request(FORGED)) == b"ConnectionRefusedError"
        ports = open_ports(it.process.pid)
        assert ports == {("127.0.0.1", it.port)}, "Envoy has no other port"


def open_ports(process: int) -> set[tuple[str, int]]:
    """Return the addresses on which a process listens over TCP."""
    owned: set[Any] = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since the folder was listed
            name = str(entry.readlink())
            if name.startswith("socket:["):
                owned.add(name[8:-1])
    found = set()
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in owned:
            address, port = fields[1].split(":")
            found.add((".".join(str(each) for each in bytes.fromhex(address)[::-1]), int(port, 16)))
    return found
