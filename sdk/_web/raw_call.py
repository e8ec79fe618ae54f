"""Calls of routes whose response is a ``google.api.HttpBody``: its bytes, with its content-type.

https://github.com/googleapis/googleapis/blob/master/google/api/httpbody.proto
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._web.http_call import HttpCall, JsonStreamCall
from sdk._web.http_rules import OCTETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdk._web.http_rules import RuleMatch
    from sdk._wire.call import Call, Transport
    from sdk._wire.host import Host
    from sdk._wire.route import Route


class RawCall(HttpCall):
    """A call with one ``HttpBody`` as its response."""

    __slots__ = ()

    def send_only(self, data: bytes, flag: int = 0) -> None:
        """Send the bytes of the message, and the end of the call."""
        if self._finished:
            return
        if self.code:
            self.finish_with(self.code, self.details)
            return
        assert self._match is not None
        kind, body = self._match.raw_response(data)
        self.send_body(body, kind)

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send the message, with ``write()`` of the context."""
        self.send_only(data, flag)


class RawStreamCall(JsonStreamCall):
    """A call with a stream of ``HttpBody`` as its response: one body, of the content-type of the first message.

    An error before the first byte has its HTTP status. Bytes have no place for a later one: the connection is cut, so
    that the body never looks complete.
    """

    __slots__ = ("_kind",)

    def __init__(
        self,
        host: Host,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
        match: RuleMatch | None = None,
    ) -> None:
        super().__init__(host, transport, route, path, headers, fields, on_finished, match)
        self._kind = b""

    def stream_head(self) -> bytes:
        """Return the status line and the headers of the response."""
        return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n" % (self._kind or OCTETS)

    def write_message_bytes(self, data: bytes) -> bytes:
        """Return the bytes of a message as they are: :meth:`send` has unpacked them."""
        return data

    def frame(self, data: bytes, flag: int) -> bytes:
        """Return the bytes of the body for one message."""
        return data

    def stream_end(self, code: int, details: str) -> bytes:
        """Return nothing: the body ends with its last message."""
        return b""

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send the bytes of one message."""
        assert self._match is not None
        kind, body = self._match.raw_response(data)
        self._kind = self._kind or kind
        if body or self._finished:  # an empty chunk is the end of a body
            super().send(body, flag, is_last=is_last)

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if not code or not self._head_sent or self._finished:
            super().finish_with(code, details)
            return
        self.status = code
        self.transport.close()
        self._finish()

    def _begin(self) -> bytes:
        # Without the end for a replica that is killed, which would make the body look complete.
        self._head_sent = True
        return self.stream_head() + self.common_headers() + self._initial + b"transfer-encoding: chunked\r\n\r\n"
