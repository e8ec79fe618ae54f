"""A bare ``grpc.aio`` server: no Ray, no proxy. ``python bare.py PORT`` serves until it is told to end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from service import greet
from user_defined_protos_pb2 import UserDefinedMessage, UserDefinedMessage2, UserDefinedResponse, UserDefinedResponse2
from user_defined_protos_pb2_grpc import UserDefinedServiceServicer, add_UserDefinedServiceServicer_to_server


class Greeter(UserDefinedServiceServicer):
    """The guide's service with async handlers."""

    async def __call__(self, request: UserDefinedMessage, context: Any) -> UserDefinedResponse:
        return greet(request)

    async def Multiplexing(self, request: UserDefinedMessage2, context: Any) -> UserDefinedResponse2:
        return UserDefinedResponse2()

    async def Streaming(self, request: UserDefinedMessage, context: Any) -> AsyncIterator[UserDefinedResponse]:
        for _ in range(request.num):
            yield greet(request)


async def main(port: int) -> None:
    """Serve on a port of 127.0.0.1."""
    server = grpc.aio.server()
    add_UserDefinedServiceServicer_to_server(Greeter(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
