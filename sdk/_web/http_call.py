"""Calls whose request and response are plain HTTP: unary Connect, JSON over HTTP, and JSON streams.

A unary call is that of https://connectrpc.com/docs/protocol#unary-request. It needs no header of Connect, so curl can
make it too. A stream of JSON messages is not a part of Connect: one message a line
(https://github.com/ndjson/ndjson-spec), or server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html) if the client accepts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk._status import STATUS_DETAILS
from sdk._web.connect import check_version
from sdk._web.http_status import status_line
from sdk._web.json_codec import dump, error_object
from sdk._web.retry_after import retry_after
from sdk._web.web_call import STATUS_KEY, WebCall, status_name
from sdk._wire import metadata as md
from sdk._wire.frames import PREFIX_LENGTH, FrameError, pack_prefix, too_long
from sdk._wire.metadata import UNIMPLEMENTED
from sdk._wire.steps import MESSAGE_BURST

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdk._web.http_rules import RuleMatch
    from sdk._wire.call import Call, Transport
    from sdk._wire.host import Host
    from sdk._wire.route import Route

NDJSON, EVENTS = b"application/x-ndjson", b"text/event-stream"
_KINDS = {"json": b"application/json", "proto": b"application/proto"}
_OK = b"HTTP/1.1 200 OK\r\n"
# Qualities of zero, without the zeros at their end.
_EXCLUDES = (b"q=", b"q=0.")


class HttpCall(WebCall):
    """A call with one message in its response.

    Args:
        host: Limits, counters and hooks.
        transport: Takes the response.
        route: The method and its handler; None if there is no such method.
        path: Path of the method, or the request's path if there is no such method.
        headers: The request's headers.
        fields: The headers by name.
        on_finished: Called once, when the response has been handed to the transport.
        codec: ``"json"`` or ``"proto"``.
        match: The rule of ``google.api.http`` that the request matched; None for the method's own path.
    """

    sends_head_early = False

    __slots__ = ("_data", "_match", "allowed", "refusal")

    def __init__(
        self,
        host: Host,
        transport: Transport,
        route: Route | None,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
        on_finished: Callable[[Call], None],
        codec: str,
        match: RuleMatch | None = None,
    ) -> None:
        super().__init__(host, transport, route, path, headers, fields, on_finished, codec)
        self._match = match
        self._data = bytearray(PREFIX_LENGTH)  # the body, with room for the prefix that gRPC's messages have
        self.refusal: tuple[bytes, int, str] | None = None
        self.allowed = b""

    # -- the request --------------------------------------------------------------------------

    def refuse(self, status: bytes, code: int, details: str, allowed: str = "") -> None:
        """Answer with an error as soon as the headers are complete.

        Args:
            status: The status line.
            code: The gRPC status code.
            details: The message.
            allowed: Value of the ``allow`` header.
        """
        self.refusal = (status, code, details)
        if allowed:
            self.allowed = b"allow: %s\r\n" % allowed.encode()

    def give_message(self, data: bytes, encoding: str) -> None:
        """Take the request message of a GET, which has no body.

        Args:
            data: Its bytes.
            encoding: Its compression; empty for none.
        """
        self._data += data
        if encoding:
            self._fields[b"content-encoding"] = encoding.encode()

    def read_headers(self) -> FrameError | None:
        """Translate the headers of the protocol to those of gRPC."""
        fields = self._fields
        if self.refusal is not None:
            return FrameError(self.refusal[1], self.refusal[2])
        encoding = fields.pop(b"content-encoding", b"identity")
        fields.pop(b"grpc-encoding", None)
        if encoding != b"identity":
            fields[b"grpc-encoding"] = encoding
        return check_version(fields.get(b"connect-protocol-version")) or super().read_headers()

    def feed(self, data: bytes) -> None:
        """Take bytes of the request's body."""
        if self._finished or self.route is None:
            return
        if self.messages is not None:
            self.queue_messages(data)
            return
        self._data += data
        length, limit = len(self._data) - PREFIX_LENGTH, self.host.settings.max_receive_message_length
        if length > limit:
            self._data.clear()
            error = too_long(length, limit)
            self.finish_with(error.code, str(error))

    def end_of_request(self) -> None:
        """Take the end of the request's body."""
        if not self._finished and self.route is not None and self.messages is None:
            data, self._data = self._data, bytearray()
            data[:PREFIX_LENGTH] = pack_prefix(int(b"grpc-encoding" in self._fields), len(data) - PREFIX_LENGTH)
            self._body = data
        elif self.messages is not None and not self._finished:
            assert self._reader is not None
            if isinstance(self._reader, LineReader):
                self.queue_messages(b"\n")  # the last line needs no line end
        super().end_of_request()

    def headers_complete(self) -> None:
        """Start the work that need not wait for the request's body."""
        super().headers_complete()
        if self.messages is not None and not self._finished:
            if self._encoding != b"identity":
                self._refuse_encoding()
                return
            is_raw = self._match is not None and self._match.rule.has_raw_body
            limit = self.host.settings.max_receive_message_length
            self._reader = PieceReader() if is_raw else LineReader(limit)  # type: ignore[assignment]  # as it

    def read_message_bytes(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return a request message as protobuf bytes."""
        if self._match is None:
            return super().read_message_bytes(data)
        return self._match.request(data, self._fields.get(b"content-type", b""))

    def _refuse_encoding(self) -> None:
        text = self._encoding.decode("latin-1")
        self.finish_with(UNIMPLEMENTED, f"content-encoding {text!r} is not supported: use gzip, deflate or identity")

    # -- the response -------------------------------------------------------------------------

    def accepted_encodings(self) -> bytes | None:
        """Return the encodings that the client accepts."""
        accepted = self._fields.get(b"accept-encoding")
        if accepted is None:
            return None
        return b",".join(_acceptable(accepted))

    def write_message_bytes(self, data: bytes) -> bytes:
        """Return a response message in the form of the codec."""
        return super().write_message_bytes(data) if self._match is None else self._match.response(data)

    def send_only(self, data: bytes, flag: int = 0) -> None:
        """Send the one message of the response together with the end of the call."""
        if self._finished:
            return
        if self.code:
            self.finish_with(self.code, self.details)
            return
        self.send_body(
            self.write_message_bytes(data), b"application/json" if self.codec == "json" else b"application/proto"
        )

    def send_body(self, body: bytes, kind: bytes) -> None:
        """Send the body of a response that ends OK.

        Args:
            body: The body.
            kind: Its content-type.
        """
        encoding = b""
        if self._packer is not None:
            self._packer.skip_next = self._skips_next
            is_packed, body = self._packer.compress(body)
            if is_packed:
                encoding = b"content-encoding: %s\r\nvary: accept-encoding\r\n" % self._packer.encoding
        self._count_burst(len(body) + MESSAGE_BURST, 1)
        self._respond(0, _OK, kind, body, encoding)

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send the message, with ``write()`` of the context."""
        HttpCall.send_only(self, data, flag)

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if self._finished:
            return
        status = status_line(code)
        if self.refusal is not None:
            status = self.refusal[0]
        elif self.route is None and code == UNIMPLEMENTED:
            status = b"HTTP/1.1 404 Not Found\r\n"
        body = dump(error_object(code, details, self._trailing))
        self._respond(code, status, b"application/json", body, self.allowed + retry_after(self._trailing))

    def _respond(self, code: int, status: bytes, kind: bytes, body: bytes, headers: bytes) -> None:
        self.status = code
        self._head_sent = True
        if self._trailing:
            trailing = tuple((_http_name(key), value) for key, value in self._trailing if key != STATUS_DETAILS)
            headers += md.encode(trailing)
        fixed = (status, kind, len(body), STATUS_KEY, status_name(code), self.common_headers())
        self.transport.write(
            b"%scontent-type: %s\r\ncontent-length: %d\r\n%s: %s\r\n%s%s%s\r\n%s"
            % (*fixed, headers, self._initial, body)
        )
        self._finish()


class HeadCall(HttpCall):
    """A HEAD request, which no method takes. Its response has no body.

    https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
    """

    __slots__ = ()

    def _respond(self, code: int, status: bytes, kind: bytes, body: bytes, headers: bytes) -> None:
        super()._respond(code, status, kind, b"", headers)


def _acceptable(header: bytes) -> list[bytes]:
    """Return the values in a header such as ``accept`` without those that it excludes, ``q=0``.

    https://www.rfc-editor.org/rfc/rfc9110#section-12.4.2
    """
    parts = (part.partition(b";") for part in header.lower().split(b","))
    return [name.strip() for name, _, quality in parts if quality.replace(b" ", b"").rstrip(b"0") not in _EXCLUDES]


def _http_name(key: str) -> str:
    """Return the name of the header for trailing metadata; HTTP has its own for how to authenticate, and for limits.

    https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
    """
    return key if key == "www-authenticate" or key.startswith("x-ratelimit-") else f"trailer-{key}"


class JsonStreamCall(HttpCall):
    """A call whose response is a stream of messages in JSON.

    An error before the first message has its HTTP status. One after it is the last line, ``{"error": {...}}``, or the
    last event, ``error``; the end of a complete stream of events is the event ``end``, after which a browser must not
    connect again.
    """

    __slots__ = ("_sends_events",)

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
        super().__init__(host, transport, route, path, headers, fields, on_finished, "json", match)
        accepted = [kind for kind in _acceptable(self._fields.get(b"accept", b"")) if kind in (EVENTS, NDJSON)]
        self._sends_events = accepted[:1] == [EVENTS]

    def accepted_encodings(self) -> bytes | None:
        """Return none: a stream is not compressed, since its messages would wait in the compressor."""
        return None

    def stream_head(self) -> bytes:
        """Return the status line and the headers of the response."""
        if self._sends_events:
            return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nvary: accept\r\ncache-control: no-cache\r\n"
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nvary: accept\r\n"

    def frame(self, data: bytes, flag: int) -> bytes:
        """Return the line or the event of one message."""
        return b"data: %s\n\n" % data if self._sends_events else data + b"\n"

    def stream_end(self, code: int, details: str) -> bytes:
        """Return the last line or event."""
        if not code:
            return b"event: end\ndata: {}\n\n" if self._sends_events else b""
        error = error_object(code, details, self._trailing)
        if self._sends_events:
            return b"event: error\ndata: %s\n\n" % dump(error)
        return dump({"error": error}) + b"\n"

    def send_only(self, data: bytes, flag: int = 0) -> None:
        """Send one message and the end."""
        WebCall.send_only(self, data, flag)

    def send(self, data: bytes, flag: int = 0, *, is_last: bool = False) -> None:
        """Send one message."""
        WebCall.send(self, data, flag, is_last=is_last)

    def finish_with(self, code: int, details: str) -> None:
        """End the call with a status, unless it has ended."""
        if code and not self._head_sent:
            super().finish_with(code, details)
        else:
            WebCall.finish_with(self, code, details)


class PieceReader:
    """Makes each piece of a request body that arrives a message; used in place of a ``FrameReader``."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: FrameError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the body and return them."""
        return [data]

    def end(self) -> None:
        """Take the end of the body."""


class LineReader:
    """Cuts a request body into lines, each the JSON of one message; used in place of a ``FrameReader``.

    Args:
        max_length: Longest line, in bytes.

    Attributes:
        error: The error behind the lines that :meth:`feed` returned.
    """

    __slots__ = ("_left", "_max_length", "error")

    def __init__(self, max_length: int) -> None:
        self._left = b""
        self._max_length = max_length
        self.error: FrameError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the body and return the lines that they complete."""
        if self.error is not None:
            return []
        *lines, self._left = (self._left + data).split(b"\n")
        longest = max(map(len, (*lines, self._left)))
        if longest > self._max_length:
            self.error = too_long(longest, self._max_length)
            return []
        return [line for line in lines if line.strip()]

    def end(self) -> None:
        """Take the end of the body, after a last line end."""
