"""A bare ``grpc.aio`` server: no Ray, no proxy. ``python bare.py [--uvloop]``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import uvloop
from bench_pb2 import Ask, Payload
from bench_pb2_grpc import BenchServicer, add_BenchServicer_to_server

from tests.benchmarks.handlers import SLEEP_S, answer, read_and_set
from tests.benchmarks.servers.reporting import report

# The largest works send 10 MB, and grpcio's limit is 4 MB by default. Nothing else is tuned: its
# users have grpcio's defaults, and with one server SO_REUSEPORT has no effect.
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


class Bare(BenchServicer):
    """The common handlers, with grpc.aio's signature."""

    async def Unary(self, request: Ask, context: Any) -> Payload:
        return answer(request)

    def UnarySync(self, request: Ask, context: Any) -> Payload:
        return answer(request)

    async def WithContext(self, request: Ask, context: Any) -> Payload:
        read_and_set(context)
        return answer(request)

    async def ThroughHandle(self, request: Ask, context: Any) -> Payload:
        raise NotImplementedError("there are no handles without Ray Serve")

    Chain = ThroughHandle

    async def DownloadThroughHandle(self, request: Ask, context: Any) -> AsyncIterator[Payload]:
        raise NotImplementedError("there are no handles without Ray Serve")
        yield Payload()

    async def Fails(self, request: Ask, context: Any) -> Payload:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("there is no such thing")
        return Payload()

    async def Sleeps(self, request: Ask, context: Any) -> Payload:
        await asyncio.sleep(SLEEP_S)
        return Payload()

    async def Download(self, request: Ask, context: Any) -> AsyncIterator[Payload]:
        for _ in range(request.count):
            yield answer(request)

    async def Upload(self, request_iterator: AsyncIterator[Payload], context: Any) -> Ask:
        count = 0
        async for _ in request_iterator:
            count += 1
        return Ask(count=count)

    async def PingPong(self, request_iterator: AsyncIterator[Payload], context: Any) -> AsyncIterator[Payload]:
        async for message in request_iterator:
            yield message


async def serve() -> None:
    """Serve until the benchmark closes the standard input."""
    server = grpc.aio.server(options=_OPTIONS)
    add_BenchServicer_to_server(Bare(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    report(port, {"server": r"bare\.py"})
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        uvloop.run(serve())
    else:
        asyncio.run(serve())
