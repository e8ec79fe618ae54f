"""A call over gRPC-Web, Connect or JSON, made as a browser makes it: one HTTP/1.1 request.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md, https://connectrpc.com/docs/protocol. The request messages
are sent together, before the first response.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from sdk._channel.status import CODE_OF_HTTP
from sdk._error_text import os_reason
from sdk._gen.status_pb2 import Status
from sdk._status import HTTP_DATE, STATUS_DETAILS
from sdk.cli.rpc.connection import parse_metadata
from sdk.cli.rpc.outcome import CallOutcome
from sdk.errors import ServerError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from sdk.cli.rpc.outcome import Pairs
    from sdk.service import Method

PROTOCOLS = ("grpc-web", "connect", "json")
_FRAME = struct.Struct(">BI")
_TRAILERS_FLAG, _END_FLAG = 0x80, 2
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_NAMES = {code.name.lower(): code for code in grpc.StatusCode} | {"canceled": grpc.StatusCode.CANCELLED}


class WebClientCall:
    """One call; its parts are those of :class:`sdk.cli.rpc.client_call.ClientCall`.

    Args:
        target: ``HOST:PORT`` or a URL.
        protocol: One of ``PROTOCOLS``.
        method: The method to call.
        requests: The request messages.
        options: The options of the command.
        pool: The types of messages in an ``Any``.
        started: Called with the response's headers when they arrive.

    Attributes:
        outcome: The outcome, after :meth:`responses`.
    """

    def __init__(
        self,
        target: str,
        protocol: str,
        method: Method,
        requests: Iterator[Message],
        options: Mapping[str, Any],
        pool: Any,
        started: Callable[[Pairs], None] | None = None,
    ) -> None:
        self._target = target
        self._protocol = protocol
        self._method = method
        self._requests = requests
        self._options = options
        self._pool = pool
        self._started = started
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: list[tuple[str, str | bytes]] = []
        self.outcome: CallOutcome

    @property
    def _is_stream(self) -> bool:
        kind = self._method.cardinality
        return kind.client_streaming or kind.server_streaming

    def responses(self) -> Iterator[Message]:
        """Yield each response message when it arrives. A status other than OK is in ``outcome``, not raised.

        Raises:
            JsonError: A request message is invalid.
            ServerError: The server can't be reached, or its response is not that of the protocol.
        """
        body = b"".join(self._encode(message) for message in self._requests)
        began, count = time.perf_counter(), 0
        connection = _connect(self._target, self._options)
        try:
            connection.request("POST", self._method.path, body, self._headers())
            response = connection.getresponse()
            initial = _pairs(response.getheaders())
            if self._started is not None:
                self._started(initial)
            try:
                for message in self._read(response):
                    count += 1
                    yield message
            except (ValueError, KeyError, DecodeError) as error:
                raise ServerError(f"the response is not one of {self._protocol}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"the server at {self._target} did not answer: {os_reason(error)}") from None
        finally:
            connection.close()
        if self._code is None:
            self._code, self._details = grpc.StatusCode.INTERNAL, "the response ended without a status"
        # A unary response of Connect has its trailing metadata in the headers.
        trailing = [(key.removeprefix("trailer-"), value) for key, value in initial if key.startswith("trailer-")]
        left = tuple(pair for pair in initial if not pair[0].startswith("trailer-") and pair[0] not in _OF_HTTP)
        seconds = time.perf_counter() - began
        trailing += self._trailing
        self.outcome = CallOutcome(self._code, self._details, left, tuple(trailing), count, seconds)

    # -- the request --------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        timeout = self._options["timeout"]
        milliseconds = max(1, round(timeout * 1000)) if timeout else 0
        headers = {"content-type": self._content_type()}
        if self._protocol == "grpc-web":
            headers |= {"x-grpc-web": "1"} | ({"grpc-timeout": f"{milliseconds}m"} if timeout else {})
        else:
            headers |= {"connect-timeout-ms": str(milliseconds)} if timeout else {}
        if self._protocol == "connect":
            headers["connect-protocol-version"] = "1"
        for key, value in map(parse_metadata, self._options["metadata"]):
            headers[key] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for option, key in (
            ("application", "application"), ("request_id", "request_id"), ("model_id", "multiplexed_model_id")
        ):  # fmt: skip
            if self._options[option]:
                headers[key] = self._options[option]
        return headers

    def _content_type(self) -> str:
        if self._protocol == "grpc-web":
            return "application/grpc-web+proto"
        if self._protocol == "json":
            return "application/json"
        return "application/connect+proto" if self._is_stream else "application/proto"

    def _encode(self, message: Message) -> bytes:
        if self._protocol == "json":
            text = json_format.MessageToJson(message, indent=None, descriptor_pool=self._pool)
            return text.encode() + b"\n"
        data = message.SerializeToString()
        if self._protocol == "connect" and not self._is_stream:
            return data
        return _FRAME.pack(0, len(data)) + data

    # -- the response -------------------------------------------------------------------------

    def _read(self, response: http.client.HTTPResponse) -> Iterator[Message]:
        kind = response.getheader("content-type", "").partition(";")[0]
        status = response.getheader("grpc-status")
        if self._protocol == "grpc-web" and status is not None:  # a response without a body
            self._end(int(status), unquote(response.getheader("grpc-message", "")))
        elif response.status != 200 and kind == "application/json":
            self._fail(json.loads(response.read()))
        elif response.status != 200 or not kind.startswith("application/"):
            self._code = CODE_OF_HTTP.get(response.status, grpc.StatusCode.UNKNOWN)
            self._details = f"HTTP status {response.status}: {response.read().decode('utf-8', 'replace')[:200]}"
        elif kind.startswith(("application/grpc-web", "application/connect+")):
            yield from self._read_frames(response)
        elif kind == "application/x-ndjson":
            yield from self._read_lines(response)
        else:
            data = response.read()
            yield self._parse(json.loads(data)) if kind == "application/json" else self._decode(data)
            self._code = grpc.StatusCode.OK

    def _read_frames(self, response: http.client.HTTPResponse) -> Iterator[Message]:
        while len(prefix := response.read(_FRAME.size)) == _FRAME.size:
            flag, length = _FRAME.unpack(prefix)
            data = response.read(length)
            if flag == _TRAILERS_FLAG:
                self._end_with_trailers(data)
            elif flag == _END_FLAG and self._protocol == "connect":
                self._end_of_connect_stream(json.loads(data))
            else:
                yield self._decode(data)

    def _read_lines(self, response: http.client.HTTPResponse) -> Iterator[Message]:
        while line := response.readline():
            value = json.loads(line)
            # The last line of a stream that failed. A message can have a field `error`, but no such status code in it.
            error = value.get("error") if value.keys() == {"error"} else None
            if isinstance(error, dict) and error.get("code") in _NAMES:
                self._fail(error)
                return
            yield self._parse(value)
        self._code = grpc.StatusCode.OK

    def _decode(self, data: bytes) -> Message:
        message: Message = self._method.response.FromString(data)
        return message

    def _parse(self, value: Any) -> Message:
        try:
            return json_format.ParseDict(
                value, self._method.response(), ignore_unknown_fields=True, descriptor_pool=self._pool
            )
        except json_format.ParseError as error:
            raise ValueError(str(error)) from None

    def _end(self, number: int, details: str) -> None:
        self._code, self._details = _CODES.get(number, grpc.StatusCode.UNKNOWN), details

    def _end_with_trailers(self, data: bytes) -> None:
        lines = (line.partition(":") for line in data.decode("latin-1").split("\r\n") if line)
        fields = [(key.strip().lower(), value.strip()) for key, _, value in lines]
        found = dict(fields)
        self._end(int(found["grpc-status"]), unquote(found.get("grpc-message", "")))
        self._trailing += (pair for pair in _pairs(fields) if pair[0] not in ("grpc-status", "grpc-message"))

    def _end_of_connect_stream(self, end: Any) -> None:
        self._trailing += _pairs((key, value) for key, values in end.get("metadata", {}).items() for value in values)
        if "error" in end:
            self._fail(end["error"])
        else:
            self._code = grpc.StatusCode.OK

    def _fail(self, error: Any) -> None:
        """Take the status from an error in Connect's form."""
        self._code = _NAMES.get(error["code"], grpc.StatusCode.UNKNOWN)
        self._details = error.get("message", "")
        if error.get("details"):
            status = Status(code=self._code.value[0], message=self._details)
            for each in error["details"]:
                packed = status.details.add(type_url=f"type.googleapis.com/{each['type']}")
                packed.value = _from_base64(each["value"])
            self._trailing.append((STATUS_DETAILS, status.SerializeToString()))


_OF_HTTP = frozenset({"connection", "content-length", "content-type", "transfer-encoding", "call-status", HTTP_DATE})


def _connect(target: str, options: Mapping[str, Any]) -> http.client.HTTPConnection:
    scheme, _, address = target.rpartition("://")
    address = address.rstrip("/")
    is_tls = scheme in ("https", "grpcs") or any(options[name] for name in ("tls_ca", "tls_certificate"))
    if not is_tls:
        return http.client.HTTPConnection(address)
    context = ssl.create_default_context(cafile=options["tls_ca"])
    if options["tls_certificate"]:
        context.load_cert_chain(options["tls_certificate"], options["tls_private_key"])
    name = options["tls_server_name"]
    connection = http.client.HTTPSConnection(address, context=context)
    if name:
        plain_wrap = context.wrap_socket
        # http.client has no argument for the name in the certificate
        context.wrap_socket = lambda sock, **_: plain_wrap(sock, server_hostname=name)  # type: ignore[method-assign]
    return connection


def _pairs(headers: Any) -> Pairs:
    return tuple(
        (key.lower(), _from_base64(value) if key.lower().endswith("-bin") else value) for key, value in headers
    )


def _from_base64(text: str) -> bytes:
    return base64.b64decode(re.sub(r"=+$", "", text) + "=" * (-len(text.rstrip("=")) % 4))
