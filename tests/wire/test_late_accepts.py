"""Connections that arrive while the event loop is blocked."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from sdk._wire.server import WireServer
from tests.support.loops import PATIENCE_S

REQUEST = b"GET /sdk.replica/alive HTTP/1.1\r\nhost: x\r\n\r\n"
BACKLOG = 64


@pytest.mark.parametrize("is_local", [True, False], ids=["unix", "tcp"])
async def test_connections_are_accepted_while_the_loop_is_blocked(
    is_local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdk._wire.server._BACKLOG", BACKLOG)
    server = WireServer([])
    port, name = await server.listen("127.0.0.1"), await server.listen_locally()
    address = f"\0{name}" if is_local else ("127.0.0.1", port)
    clients: list[socket.socket] = []
    is_connected = threading.Event()

    def connect() -> None:
        for _ in range(2 * BACKLOG):
            client = socket.socket(socket.AF_UNIX if is_local else socket.AF_INET)
            clients.append(client)
            client.connect(address)  # waits while the backlog is full
            client.sendall(REQUEST)
        is_connected.set()

    thread = threading.Thread(target=connect)
    thread.start()
    assert is_connected.wait(PATIENCE_S), "the loop is blocked here"
    thread.join()
    for client in clients:
        assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.1 200")
        client.close()
    await server.drain(quiet_s=0, grace_s=0)


async def test_a_drained_server_accepts_nothing() -> None:
    server = WireServer([])
    port = await server.listen("127.0.0.1")
    address = f"\0{await server.listen_locally()}"
    await server.drain(quiet_s=0, grace_s=0)
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", port))
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(address)
