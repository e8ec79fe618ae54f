"""The limit of Envoy's memory: a flood costs new calls, and the process and what it serves stay."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sdk._xds.access_log import AccessLogConfig
from tests.support.envoy_rig import Upstream, rig
from tests.support.log_files import complete_lines
from tests.support.loops import PATIENCE_S
from tests.support.raw_http2 import DATA, MAX_FRAME, connect

if TYPE_CHECKING:
    from tests.support.envoy_rig import Apps

APPS: Apps = {"one": {"Slow": (["demo.Slow"], ["hoarder"]), "Greeter": (["demo.Greeter"], ["a"])}}
LIMIT = 64 << 20
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
        refused: dict[str, str] = {}
        async with connect(it.port) as client:
            for _ in range(100):
                stream = client.open("/demo.Slow/Take")
                for _ in range(FRAMES):
                    client.send(DATA, body=bytes(MAX_FRAME), stream=stream)
                await client.flush()
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
