"""Another user of the node: each of our sockets refuses it when it connects."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdk._channel.feed import socket_name
from sdk._ingress.endpoint_feed import EndpointFeed
from sdk._ingress.envoy.adoption import start_envoy
from sdk._ingress.envoy.listening import gate_server
from sdk._ingress.envoy.supervisor import SupervisorConfig, process_start_time
from sdk._ingress.node_leases import NodeHeartbeat, NodeLeases
from sdk._ingress.node_leases import socket_name as leases_socket
from sdk._ingress.scale_to_zero.gate import Gate
from sdk._replica_protocol import HEALTH_CHECK_PATH, HEALTH_CHECK_RESPONSE
from sdk._wire.server import WireServer
from sdk.options import GrpcOptions
from tests.support.envoy_rig import rig
from tests.support.loops import PATIENCE_S

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

# Connects to the socket that is named by its argument, sends its input, and prints what it reads up to the end or to an
# empty line.
CLIENT = """
import os, socket, sys
os.setgroups([]); os.setgid({user}); os.setuid({user})
peer = socket.socket(socket.AF_UNIX)
peer.settimeout({patience})
try:
    peer.connect(sys.argv[1].replace("@", chr(0)))
    peer.sendall(sys.stdin.buffer.read())
    seen = b""
    while not seen.endswith(b"\\n") and (piece := peer.recv(4096)):
        seen += piece
except OSError as error:
    seen = b"refused: " + type(error).__name__.encode()
sys.stdout.buffer.write(seen)
"""
SQUATTER = """
import os, socket, sys
os.setgroups([]); os.setgid({user}); os.setuid({user})
listener = socket.socket(socket.AF_UNIX)
listener.bind(chr(0) + "{name}")
listener.listen()
print("listens", flush=True)
sys.stdin.read()
"""
PROBE = f"GET {HEALTH_CHECK_PATH} HTTP/1.1\r\nhost: replica\r\n\r\n".encode()


async def answer_to(user: int, path: str, data: bytes) -> bytes:
    """Return what a process of a user reads from a socket; ``@`` in its path is a NUL byte."""
    code = CLIENT.format(user=user, patience=PATIENCE_S)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", code, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    seen, _ = await process.communicate(data)
    return seen


def is_refusal(answer: bytes) -> bool:
    """Return True for a connection that was closed, or that was not possible."""
    return answer in (b"", b"refused: ConnectionResetError", b"refused: BrokenPipeError", b"refused: PermissionError")


async def test_a_replica_answers_its_own_user_only(caplog: pytest.LogCaptureFixture) -> None:
    server = WireServer([])
    name = await server.listen_locally()
    for _ in range(2):
        assert is_refusal(await answer_to(NOBODY, f"@{name}", PROBE))
    assert await answer_to(os.geteuid(), f"@{name}", PROBE) == HEALTH_CHECK_RESPONSE
    assert [record.getMessage() for record in caplog.records] == [
        f"refused a connection of another user of this node, with user id {NOBODY}"
    ], "once for each user"
    await server.drain(quiet_s=0, grace_s=0)


async def test_a_replica_that_is_busy_accepts_no_other_user_either() -> None:
    """Connections that a thread accepts while the loop is blocked are checked too."""
    server = WireServer([])
    name = await server.listen_locally()

    def ask_while_the_loop_is_blocked() -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        os.seteuid(NOBODY)
        try:
            peer.connect(f"\0{name}")
        finally:
            os.seteuid(0)
        return peer

    late = server._late_accepts
    assert late is not None
    peer = ask_while_the_loop_is_blocked()
    while not late._accepted:  # not await: the loop must not accept it
        os.sched_yield()
    peer.setblocking(False)
    assert is_refusal(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 1), PATIENCE_S))
    peer.close()
    await server.drain(quiet_s=0, grace_s=0)


async def test_the_feed_of_endpoints_answers_its_own_user_only() -> None:
    node = f"node-{os.getpid()}"
    feed = EndpointFeed(lambda: None)
    listening = asyncio.create_task(feed.listen(node))
    path = f"@{socket_name(node)}"
    while (answer := await answer_to(NOBODY, path, b"x\n")) == b"refused: ConnectionRefusedError":
        pass  # it does not listen yet
    assert is_refusal(answer)
    feed.stop()
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening


async def test_the_socket_for_heartbeats_reads_nothing_of_another_user() -> None:
    # What it reads is unpickled: that would run another user's code.
    renewed: list[object] = []

    async def renew_all(renewals: object) -> Any:
        renewed.append(renewals)

    leases, node = NodeLeases(renew_all, heartbeat_s=0.0), f"node-{os.getpid()}"
    listening = asyncio.create_task(leases.listen(node))
    path = f"@{leases_socket(node)}"
    line = json.dumps(["replica", base64.b64encode(pickle.dumps("options")).decode()]).encode() + b"\n"
    while (answer := await answer_to(NOBODY, path, line)) == b"refused: ConnectionRefusedError":
        pass  # it does not listen yet
    assert is_refusal(answer)
    assert (leases._waiting, renewed) == ({}, [])
    leases.stop()
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening


async def test_a_program_refuses_a_socket_of_another_user() -> None:
    """Names of abstract sockets are free for all: another user may listen first."""
    node = f"squatted-{os.getpid()}"
    code = SQUATTER.format(user=NOBODY, name=leases_socket(node))
    squatter = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert squatter.stdout is not None
    assert await squatter.stdout.readline() == b"listens\n"
    with pytest.raises(PermissionError, match="another user listens"):
        await NodeHeartbeat(node, "replica").renew(GrpcOptions())
    await squatter.communicate(b"")  # which closes its input


@pytest.fixture
def umask() -> Iterator[None]:
    """Give files that are created the widest modes, as an operator's umask may."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
async def test_envoy_and_its_control_plane_answer_their_own_user_only() -> None:
    request = b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n"
    async with rig("one") as it:
        gate = gate_server(Gate(lambda counts: {}).generic_handler(), it.folder)
        await gate.start()
        await it.publish({"app": {"d": (["demo.Greeter"], ["one"])}})
        for is_open in (False, True):
            if is_open:  # as if the folder's mode were wrong: the socket itself is not enough to get in
                it.folder.chmod(0o755)
            for name in ("envoy.admin.sock", "ads.sock", "gate.sock", "fallback.sock"):
                path = it.folder / name
                assert path.is_socket()
                assert is_refusal(await answer_to(NOBODY, str(path), request)), (name, is_open)
                assert not is_refusal(await answer_to(os.geteuid(), str(path), request)), (name, is_open)
        await gate.stop(None)


async def test_a_supervisor_obeys_its_own_user_only() -> None:
    sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
    with (
        tempfile.TemporaryDirectory(prefix="sdk-t-", ignore_cleanup_errors=True) as path,
        subprocess.Popen(sleep) as it,
    ):
        folder = Path(path, "p")
        folder.mkdir(mode=0o700)
        began = process_start_time(it.pid)
        assert began is not None
        envoy = await start_envoy(folder, SupervisorConfig("digest", sleep, it.pid, began, 30.0))
        # As if the folder's mode were wrong: the socket itself is not enough to get in.
        for opened in (Path(path), folder, folder / "control.sock"):
            opened.chmod(0o777)
        assert is_refusal(await answer_to(NOBODY, str(folder / "control.sock"), b"stop\n"))
        log = (folder / "supervisor.log").read_text()
        assert f"another user, with user id {NOBODY}" in log
        await envoy.stop()
        it.kill()
