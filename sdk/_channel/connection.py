"""One connection to the wire server of a replica: sends a request, parses the response. One call at a time.

On the path of every call through a handle, and written for speed: the response of nearly every unary call is one read
in the exact form that our wire server writes (``Call.send_only``), which is taken apart without a parser. A long
message is read into its own buffer (``long_body.py``). Everything else goes through httptools.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import httptools

from sdk._channel.long_body import FirstBytes, LongBody, unfilled
from sdk._replica_protocol import GOING_AWAY, HEALTH_CHECK_RESPONSE
from sdk._wire.frames import LARGE, PREFIX_LENGTH, unpack_prefix
from sdk._wire.host import KEEP_ALIVE_HEAD
from sdk._wire.send_buffer import enlarge_send_buffer

_HEAD_LENGTH = len(KEEP_ALIVE_HEAD)
# The bytes between the one message of a successful unary response and its last trailer.
_SUCCESS = b"\r\n0\r\ngrpc-status: 0\r\nrequest_id: "
_SUCCESS_LENGTH = len(_SUCCESS)


class CarriedCall(Protocol):
    """A call as its connection sees it."""

    messages: Any
    request_complete: bool

    def succeed(self, data: bytes) -> None:
        """Take the whole response of a unary call."""

    def head_received(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the head of a response."""

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes of the response's body."""

    def response_complete(self, http_status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Take the end of the response."""

    def refused(self) -> None:
        """Take that the replica leaves, and has not looked at the request."""

    def connection_lost(self, *, has_response: bool, was_sent: bool) -> None:
        """Take that the replica is gone."""

    def malformed(self, reason: str) -> None:
        """Take that the response is not one of a wire server."""

    def wake_writer(self) -> None:
        """Continue to send: there is room again."""

    def fail(self, error: Exception) -> None:
        """End with an error."""


class ConnectionOwner(Protocol):
    """The owner of a connection."""

    @property
    def preface(self) -> bytes:
        """The first bytes of a connection."""

    def release(self, connection: Any) -> None:
        """Take a connection back whose call has ended."""

    def forget(self, connection: Any) -> None:
        """Take that a connection has closed."""


class ReplicaConnection(asyncio.Protocol):
    """One connection.

    Args:
        owner: The connections to the same replica.

    Attributes:
        call: The call that it carries; None while it is idle.
        accepted: Done once the replica has accepted the connection, or has not.
        idle_since: Time at which its last call ended, by the loop's clock.
        writable: False while the replica does not read what was sent.
    """

    __slots__ = (
        "_expects_long", "_fields", "_head", "_is_fresh", "_is_paused", "_long_body", "_owner", "_parser", "_transport",
        "accepted", "call", "idle_since", "writable",
    )  # fmt: skip

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self.call: CarriedCall | None = None
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.idle_since = 0.0
        self.writable = True
        self._parser: Any = None  # made when a response is not in the usual form
        self._fields: list[tuple[bytes, bytes]] = []
        self._head: list[tuple[bytes, bytes]] | None = None
        self._is_fresh = True  # no byte of the current response has arrived
        self._is_paused = False
        self._long_body: bytearray | None = None
        self._expects_long = False  # the last response was

    # -- for the call -------------------------------------------------------------------------

    def send(self, call: CarriedCall, head: bytes, body: bytes = b"") -> None:
        """Begin a call: send the head of its request, with the body or without it."""
        self.call = call
        self._is_fresh = True
        if self._expects_long:
            self._expects_long = False
            if call.messages is None:
                FirstBytes(self, self._transport)
        if len(body) < LARGE:
            self._transport.write(head + body)
        else:  # a long message is not copied
            enlarge_send_buffer(self._transport)
            self._transport.writelines((head, body))

    def write(self, chunk: bytes) -> None:
        """Send a part of a stream of requests."""
        self._transport.write(chunk)

    def end_requests(self) -> None:
        """Send the end of a stream of requests."""
        self._transport.write(b"0\r\n\r\n")

    def pause(self) -> None:
        """Stop reading: the caller has not taken the messages that arrived."""
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def cancel(self) -> None:
        """End the call: the replica cancels its handler when the connection closes."""
        self.call = None
        self.close()

    def close(self) -> None:
        """Close without waiting."""
        self._owner.forget(self)
        self._transport.abort()

    @property
    def is_open(self) -> bool:
        """True if a call can begin on it."""
        return not self._transport.is_closing()

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        transport.write(self._owner.preface)  # type: ignore[attr-defined]  # asyncio types it as a BaseTransport

    def data_received(self, data: bytes) -> None:
        call = self.call
        if (
            call is not None
            and self._is_fresh
            and call.messages is None
            and call.request_complete
            and data.startswith(KEEP_ALIVE_HEAD)
        ):
            end = data.find(b"\r\n", _HEAD_LENGTH, _HEAD_LENGTH + 9)
            if end > 0:
                begin = end + 2
                stop = begin + int(data[_HEAD_LENGTH:end], 16)
                after = stop + _SUCCESS_LENGTH
                if (
                    data[stop:after] == _SUCCESS
                    and data.find(b"\r\n\r\n", after) == len(data) - 4
                    and unpack_prefix(data, begin) == (0, stop - begin - PREFIX_LENGTH)
                ):
                    self.call = None
                    self._owner.release(self)
                    call.succeed(data[begin + PREFIX_LENGTH : stop])
                    return
                if stop - len(data) >= LARGE:
                    self._read_long_body(data, begin, stop)
                    return
        self._parse(data)

    def _read_long_body(self, data: bytes, begin: int, stop: int) -> None:
        """Read the rest of the first chunk into its own buffer."""
        self._begin_parsing()
        self._parser.feed_data(KEEP_ALIVE_HEAD)
        body = unfilled(stop - begin)
        filled = len(data) - begin
        body[:filled] = memoryview(data)[begin:]
        LongBody(self, self._transport, body, filled, self._take_long_body)

    def _take_long_body(self, body: bytearray) -> None:
        self._long_body, self._expects_long = body, True
        # A shorter chunk instead: the parser is now where the connection is, before the end of the line.
        self._parser.feed_data(b"1\r\n\0")

    def _parse(self, data: bytes) -> None:
        if self._is_fresh and data.startswith(GOING_AWAY):
            call, self.call = self.call, None
            self.close()
            if call is not None:
                call.refused()
            return
        if self.call is None and data == HEALTH_CHECK_RESPONSE and not self.accepted.done():
            self.accepted.set_result(None)
            return
        if self.call is None:
            self.close()  # bytes that nobody asked for
            return
        if self._is_fresh:
            self._begin_parsing()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            failed, self.call = self.call, None
            self.close()
            if failed is not None:
                failed.malformed(str(error.__context__ or error))

    def _begin_parsing(self) -> None:
        self._is_fresh = False
        self._parser = httptools.HttpResponseParser(self)
        self._fields, self._head = [], None

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._parser = None  # it refers to this object
        self._owner.forget(self)
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionResetError("the replica leaves"))
        call, self.call = self.call, None
        if call is not None:
            # The kernel refused the write: the replica was gone, and can't have the whole request.
            call.connection_lost(has_response=not self._is_fresh, was_sent=not isinstance(error, BrokenPipeError))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.call is not None:
            self.call.wake_writer()

    # -- httptools ----------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._head, self._fields = self._fields, []
        if self.call is not None:
            self.call.head_received(self._head)

    def on_body(self, data: bytes | bytearray) -> None:
        if self._long_body is not None:
            data, self._long_body = self._long_body, None
        if self.call is not None:
            self.call.feed(data)

    def on_message_complete(self) -> None:
        call, self.call = self.call, None
        if call is None:
            return
        parser = self._parser
        status, keeps = parser.get_status_code(), parser.should_keep_alive()
        self.resume()
        if keeps and call.request_complete:
            self._parser = None
            self._owner.release(self)
        else:
            self.close()
        call.response_complete(status, self._fields or self._head or [])
