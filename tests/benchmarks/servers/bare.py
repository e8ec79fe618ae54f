"""A bare ``grpc.aio`` server: no Ray, no proxy. ``python bare.py [--uvloop]``.

It calls a second server of the same kind in another process, and that one a third: what people do instead of handles.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import uvloop
from bench_pb2 import Ask, Payload
from bench_pb2_grpc import BenchServicer, BenchStub, add_BenchServicer_to_server

from tests.benchmarks.handlers import SLEEP_S, answer, read_and_set
from tests.benchmarks.servers.reporting import report

# The largest works send 10 MB, and grpcio's limit is 4 MB by default. Nothing else is tuned: its
# users have grpcio's defaults, and with one server SO_REUSEPORT has no effect.
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


class Bare(BenchServicer):
    """The common handlers, with grpc.aio's signature.

    Args:
        downstream: Stub of the next server.
    """

    def __init__(self, downstream: Any = None) -> None:
        self._downstream = downstream

    async def Unary(self, request: Ask, context: Any) -> Payload:
        return answer(request)

    def UnarySync(self, request: Ask, context: Any) -> Payload:
        return answer(request)

    async def WithContext(self, request: Ask, context: Any) -> Payload:
        read_and_set(context)
        return answer(request)

    async def ThroughHandle(self, request: Ask, context: Any) -> Payload:
        if request.count < 2:
            payload: Payload = await self._downstream.Unary(request)
            return payload
        payloads: list[Payload] = await asyncio.gather(*(self._downstream.Unary(request) for _ in range(request.count)))
        return payloads[0]

    async def Chain(self, request: Ask, context: Any) -> Payload:
        if request.count < 2:
            return answer(request)
        payload: Payload = await self._downstream.Chain(Ask(name=request.name, count=request.count - 1))
        return payload

    async def DownloadThroughHandle(self, request: Ask, context: Any) -> AsyncIterator[Payload]:
        async for payload in self._downstream.Download(request):
            yield payload

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


async def serve_at(address: str, downstream: Any) -> tuple[grpc.aio.Server, int]:
    """Start a server, and return it with its port."""
    server = grpc.aio.server(options=_OPTIONS)
    add_BenchServicer_to_server(Bare(downstream), server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, port


async def serve_inner(place: str, following: str = "") -> None:
    """Serve at a unix socket until the first server closes the standard input."""
    async with grpc.aio.insecure_channel(following or place, options=_OPTIONS) as channel:
        server, _ = await serve_at(place, BenchStub(channel))
        await channel.channel_ready()
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(0)


async def serve() -> None:
    """Serve until the benchmark closes the standard input."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        places = [f"unix:{folder}/second.sock", f"unix:{folder}/third.sock"]
        inner = [
            subprocess.Popen([sys.executable, *sys.argv, "--inner", *places[number:]], stdin=subprocess.PIPE)
            for number in range(len(places))
        ]
        try:
            async with grpc.aio.insecure_channel(places[0], options=_OPTIONS) as channel:
                server, port = await serve_at("127.0.0.1:0", BenchStub(channel))
                await channel.channel_ready()
                report(port, {"server": r"bare\.py"})
                await asyncio.to_thread(sys.stdin.read)
                await server.stop(0)
        finally:
            for process in inner:
                process.communicate()


if __name__ == "__main__":
    program = serve_inner(*sys.argv[sys.argv.index("--inner") + 1 :]) if "--inner" in sys.argv else serve()
    if "--uvloop" in sys.argv:
        uvloop.run(program)
    else:
        asyncio.run(program)
