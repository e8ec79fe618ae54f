"""Streams of responses over gRPC-Web and JSON, and their end as a gRPC code.

Each has its own connection. A connection that is refused or lost is UNAVAILABLE, as it is for clients of gRPC.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Mapping

import grpc
import httpx
from probe_pb2 import Ask, Told

_PATH = "/probe.AsyncProbe/Down"
_TRAILERS = 0x80
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Ending(Exception):
    """The end of a stream that failed."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(code, details)
        self.code, self.details = code, details


class WebStreams:
    """Calls the method ``Down`` of an application over HTTP/1.1.

    Args:
        client: Makes the requests.
        address: Address of Envoy's listener.
        application: The name of the application.
    """

    def __init__(self, client: httpx.AsyncClient, address: str, application: str) -> None:
        self._client, self._url, self._application = client, f"http://{address}{_PATH}", application

    async def grpc_web(self, wanted: int, numbers: list[int]) -> None:
        """Make a call over gRPC-Web.

        Args:
            wanted: How many messages to ask for.
            numbers: Gets the number of each message.

        Raises:
            Ending: The call failed.
        """
        data = Ask(number=wanted).SerializeToString()
        left = b""
        code, details = "TRUNCATED", ""
        async with self._ask("application/grpc-web+proto", struct.pack(">BI", 0, len(data)) + data) as response:
            if response.status_code != 200:
                raise Ending(f"HTTP {response.status_code}", (await response.aread()).decode())
            if "grpc-status" in response.headers:
                code, details = _status(response.headers)
            async for piece in response.aiter_raw():
                left += piece
                while len(left) >= 5 and len(left) >= 5 + (length := struct.unpack_from(">BI", left)[1]):
                    flag, frame, left = left[0], left[5 : 5 + length], left[5 + length :]
                    if flag & _TRAILERS:
                        lines = (line.partition(":") for line in frame.decode().splitlines())
                        code, details = _status({name: value.strip() for name, _, value in lines})
                    else:
                        numbers.append(Told.FromString(frame).number)
        if code != "OK":
            raise Ending(code, details)

    async def ndjson(self, wanted: int, numbers: list[int]) -> None:
        """Make a call in JSON, whose response has a message on each line.

        Args:
            wanted: How many messages to ask for.
            numbers: Gets the number of each message.

        Raises:
            Ending: The call failed.
        """
        async with self._ask("application/json", json.dumps({"number": wanted}).encode()) as response:
            if response.status_code != 200:
                raise _error(json.loads(await response.aread()))
            async for line in response.aiter_lines():
                message = json.loads(line)
                if "error" in message:
                    raise _error(message["error"])
                numbers.append(int(message.get("number", 0)))

    def _ask(self, kind: str, data: bytes) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
        headers = {"content-type": kind, "application": self._application}
        return self._client.stream("POST", self._url, content=data, headers=headers)


def _status(fields: Mapping[str, str]) -> tuple[str, str]:
    return _NAMES[int(fields["grpc-status"])], fields.get("grpc-message", "")


def _error(error: dict[str, str]) -> Ending:
    return Ending(error["code"].upper(), error.get("message", ""))
