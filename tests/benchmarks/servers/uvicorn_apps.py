"""The small call on uvicorn: ``python -m tests.benchmarks.servers.uvicorn_apps fastapi|connect``.

One process with uvloop and httptools, without an access log. FastAPI answers in JSON, connect-python in the Connect
protocol; its documentation names uvicorn among the servers for HTTP/1.1.
https://connectrpc.com/docs/python/deployment
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
from bench_pb2 import Ask, Payload
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint
from fastapi import FastAPI
from pydantic import BaseModel

from tests.benchmarks.servers.reporting import report
from tests.support.ports import free_port

_PATH = "/bench.Bench/Unary"


class AskModel(BaseModel):
    """The request, for FastAPI."""

    name: str = ""
    size: int = 0
    count: int = 0


class PayloadModel(BaseModel):
    """The response, for FastAPI."""

    greeting: str = ""


def fastapi() -> FastAPI:
    """Return the application of FastAPI."""
    app = FastAPI()

    @app.post(_PATH, response_model=PayloadModel)
    async def unary(ask: AskModel) -> PayloadModel:
        return PayloadModel(greeting=f"Hello {ask.name}!")

    return app


class ConnectApplication(ConnectASGIApplication[None]):
    """The application of connect-python."""

    @property
    def path(self) -> str:
        """The path of the service."""
        return "/bench.Bench"


def connect() -> ConnectApplication:
    """Return the application of connect-python, with protobuf's own messages."""
    method = MethodInfo(
        name="Unary",
        service_name="bench.Bench",
        input=Ask,
        output=Payload,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )

    async def unary(request: Ask, _: Any) -> Payload:
        return Payload(greeting=f"Hello {request.name}!")

    return ConnectApplication(
        service=None,
        endpoints=lambda _: {_PATH: Endpoint.unary(method, unary)},
        compressions=(),
        codecs=(google_protobuf_binary_codec(), google_protobuf_json_codec()),
    )


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        report(self.config.port, {})


def main() -> None:
    """Serve until the process is ended."""
    app: Any = {"fastapi": fastapi, "connect": connect}[sys.argv[1]]()
    config = uvicorn.Config(
        app, port=free_port(), loop="uvloop", http="httptools", access_log=False, log_level="error", lifespan="off"
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
