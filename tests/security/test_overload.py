"""The limit of Envoy's memory: a flood costs new calls, and the process and what it serves stay."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from sdk._xds.access_log import AccessLogConfig
from tests.support.envoy_rig import Upstream, rig
from tests.support.log_files import complete_lines
from tests.support.loops import PATIENCE_S
from tests.support.raw_http2 import DATA, MAX_FRAME, connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.envoy_rig import Apps
    from tests.support.raw_http2 import RawConnection

APPS: Apps = {"one": {"Slow": (["demo.Slow"], ["hoarder"]), "Greeter": (["demo.Greeter"], ["a"])}}
LIMIT = 64 << 20
WEB = ("application/grpc-web+proto", "application/proto", "application/connect+proto", "application/json")
#: Frames of a request that fit into the windows that Envoy gives a stream.
FRAMES = (1 << 20) // MAX_FRAME - 1


class Hoarder(Upstream):
    """A replica whose handlers do not read."""

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET "):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            else:
                await self.hold.wait()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def hoard(client: RawConnection) -> None:
    """Begin a call whose request stays in Envoy's memory."""
    stream = client.open("/demo.Slow/Take")
    for _ in range(FRAMES):
        client.send(DATA, body=bytes(MAX_FRAME), stream=stream)
    await client.flush()


async def connect_for_web(port: int) -> HTTPConnection:
    """Connect before the flood: near its limit, Envoy accepts no connections."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    await asyncio.to_thread(connection.connect)
    return connection


async def is_refused(connection: HTTPConnection, kind: str, request_id: str) -> bool:
    """Call over a protocol. Return whether the call is refused, and check that the refusal is a whole answer of it."""

    def ask() -> tuple[int, Mapping[str, str], bytes]:
        given = {"request_id": request_id} if request_id else {}
        connection.request("POST", "/demo.Unknown/Do", b"", {"content-type": kind, **given})
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    status, headers, body = await asyncio.to_thread(ask)
    if headers["call-status"] != "RESOURCE_EXHAUSTED":
        return False
    assert re.fullmatch(request_id or "[0-9a-f-]{36}", headers["request_id"])
    if kind.startswith("application/grpc-web"):
        assert (status, headers["grpc-status"], body) == (200, "8", b"")
        assert "limit of memory (max_envoy_memory_bytes)" in headers["grpc-message"]
        assert "grpc-status-details-bin" in headers
    else:
        assert (status, headers["content-type"]) == (429, "application/json")
        error = json.loads(body)
        assert (error["code"], error["details"][0]["type"]) == ("resource_exhausted", "google.rpc.RetryInfo")
        assert "limit of memory (max_envoy_memory_bytes)" in error["message"]
    return True


async def test_a_flood_of_requests_costs_new_calls_and_not_the_process() -> None:
    async with rig("a", max_memory_bytes=LIMIT) as it:
        log = it.folder / "access.log"
        it.config = replace(it.config, access_log=AccessLogConfig(str(log)))
        hoarder = it.upstreams["hoarder"] = Hoarder("hoarder")
        await hoarder.start()
        hoarder.hold.clear()
        await it.publish(APPS)
        assert await it.answers("/demo.Greeter/SayHello") == "a"
        it.upstreams["a"].hold.clear()
        began = asyncio.create_task(it.answers("/demo.Greeter/SayHello"))
        web = {(kind, request_id): await connect_for_web(it.port) for kind in WEB for request_id in ("mine", "")}
        refused: dict[str, str] = {}
        async with connect(it.port) as client:
            for _ in range(100):
                await hoard(client)
                code, text, trailers = await it.call("/demo.Unknown/Do", ("request_id", "mine"))
                if code != "NOT_FOUND":
                    refused = {"code": code, "text": text, **trailers}
                    _, _, other = await it.call("/demo.Unknown/Do")
                    break
            assert refused["code"] == "RESOURCE_EXHAUSTED", refused
            assert "limit of memory (max_envoy_memory_bytes)" in refused["text"]
            assert "grpc-status-details-bin" in refused
            assert refused["request_id"] == "mine"
            assert re.fullmatch(r"[0-9a-f-]{36}", other["request_id"]), "Envoy refuses it before it gives it an id"
            for (kind, request_id), connection in web.items():
                async with asyncio.timeout(PATIENCE_S):
                    while not await is_refused(connection, kind, request_id):
                        await hoard(client)  # Envoy has reset calls meanwhile, and has memory again
                connection.close()
            async with asyncio.timeout(PATIENCE_S):
                while not (logged := [line for line in complete_lines(log) if other["request_id"] in line]):
                    await asyncio.sleep(0.05)
            assert '"status":"RESOURCE_EXHAUSTED"' in logged[0]
            assert '"details":"overload"' in logged[0]
        it.upstreams["a"].hold.set()
        assert await began == "a", "a call that had begun goes on"
        async with asyncio.timeout(PATIENCE_S):
            while await it.answers("/demo.Greeter/SayHello") != "a":
                await asyncio.sleep(0.05)
        assert it.process.poll() is None
        await hoarder.stop()
