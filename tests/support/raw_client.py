"""A client that shows the parts of answers that gRPC libraries hide, and sends requests that they would not.

It exposes HTTP/2 header blocks in order, and flags of messages; a test may make its requests malformed.
"""

from __future__ import annotations

import gzip
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack

#: Seconds to wait for an answer before a test fails.
PATIENCE_S = 15.0

Headers = list[tuple[bytes, bytes]]


def frame(message: bytes, flag: int = 0) -> bytes:
    """Return a message with gRPC's prefix."""
    return struct.pack(">BI", flag, len(message)) + message


def compressed(message: bytes) -> bytes:
    return frame(gzip.compress(message), flag=1)


@dataclass
class Stream:
    """One call, with the received part of its answer.

    Attributes:
        blocks: Header blocks in the order of arrival.
        body: Bytes of the response's body.
        ended: Whether the server has ended the stream.
        reset: Error code of a received RST_STREAM.
    """

    client: RawClient
    number: int
    blocks: list[Headers] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Send bytes of the request's body within flow control; the last ones may half-close."""
        while data:
            room = min(self.client.room(self.number), len(data))
            if room:
                self.client.http.send_data(self.number, data[:room], end_stream=end and room == len(data))
                self.client.flush()
                data = data[room:]
                end = end and bool(data)
            else:
                self.client.receive(time.monotonic() + PATIENCE_S)
        if end:
            self.client.http.end_stream(self.number)
            self.client.flush()

    def cancel(self) -> None:
        self.client.http.reset_stream(self.number, 8)
        self.client.flush()

    def wait(
        self, condition: Callable[[Stream], Any] = lambda stream: stream.ended or stream.reset is not None
    ) -> None:
        """Receive until the condition holds: by default, until the end."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self):
            self.client.receive(deadline)

    def finish(self) -> Stream:
        """Receive the rest."""
        self.wait()
        return self

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """The flag and the bytes of each message."""
        frames, start = [], 0
        while start < len(self.body):
            flag, length = struct.unpack_from(">BI", self.body, start)
            frames.append((flag, bytes(self.body[start + 5 : start + 5 + length])))
            start += 5 + length
        return frames

    @property
    def messages(self) -> list[bytes]:
        """The messages, decompressed."""
        return [gzip.decompress(data) if flag else data for flag, data in self.frames]

    def first(self, name: bytes) -> list[bytes]:
        """Return the values of a header in the first block."""
        return [value for key, value in self.blocks[0] if key == name]

    def last(self, name: bytes) -> list[bytes]:
        """Return the values of a header in the last block: of a trailer, when the answer has trailers."""
        return [value for key, value in self.blocks[-1] if key == name]

    @property
    def status(self) -> tuple[int, bytes]:
        """The gRPC status code, and the bytes of ``grpc-message``."""
        assert self.ended, self
        (code,) = self.last(b"grpc-status")
        return int(code), b"".join(self.last(b"grpc-message"))


class _Encoder(hpack.Encoder):
    """Leaves long values without the Huffman code: its time grows with their square, to 0.8 s for one of 100 kB."""

    def encode(self, headers: Iterable[tuple[bytes, bytes]], huffman: bool = True) -> bytes:
        fields = list(headers)
        return super().encode(fields, huffman and max(len(value) for _, value in fields) < 4096)


class RawClient:
    """One HTTP/2 connection without TLS.

    Args:
        address: Host and port.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self._authority = address.encode()
        # Neither checked nor normalised, because this client sends malformed requests.
        config = h2.config.H2Configuration(
            header_encoding=False, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.http = h2.connection.H2Connection(config)
        self.http.encoder = _Encoder()
        self.http.initiate_connection()
        self._streams: dict[int, Stream] = {}
        self.flush()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def open(
        self,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        method: str = "POST",
        content_type: str | None = "application/grpc",
        te: str | None = "trailers",
        end: bool = False,
    ) -> Stream:
        """Begin a call: send its headers."""
        block = [(b":method", method.encode()), (b":scheme", b"http"), (b":path", path.encode())]
        block.append((b":authority", self._authority))
        if te is not None:
            block.append((b"te", te.encode()))
        if content_type is not None:
            block.append((b"content-type", content_type.encode()))
        block += [(key.encode(), value.encode()) for key, value in headers]
        number = self.http.get_next_available_stream_id()
        stream = self._streams[number] = Stream(self, number)
        self.http.send_headers(number, block, end_stream=end)
        self.flush()
        return stream

    def call(self, path: str, *messages: Any, headers: Iterable[tuple[str, str]] = (), **options: Any) -> Stream:
        """Call with these protobuf messages, half-close, and receive the whole answer."""
        stream = self.open(path, headers, **options)
        stream.send(b"".join(frame(message.SerializeToString()) for message in messages), end=True)
        return stream.finish()

    def accept_headers(self, size: int) -> None:
        """Accept header blocks of this many bytes."""
        self.http.update_settings({h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: size})
        self.flush()

    def room(self, number: int) -> int:
        """Return the bytes of body that may be sent in one frame now."""
        return min(self.http.local_flow_control_window(number), self.http.max_outbound_frame_size)

    def flush(self) -> None:
        self._socket.sendall(self.http.data_to_send())

    def receive(self, deadline: float) -> None:
        """Receive something, until a time of the monotonic clock.

        Raises:
            TimeoutError: Nothing came.
            ConnectionError: The server has closed the connection.
        """
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed the connection")
        for event in self.http.receive_data(data):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    self._streams[event.stream_id].blocks.append(list(event.headers))
                case h2.events.DataReceived():
                    self._streams[event.stream_id].body += event.data
                    if event.flow_controlled_length:
                        self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self._streams[event.stream_id].ended = True
                case h2.events.StreamReset():
                    self._streams[event.stream_id].reset = int(event.error_code)
                case h2.events.ConnectionTerminated():
                    raise ConnectionError(f"the server ended the connection: {event.error_code}")
                case _:
                    pass  # settings, windows and pings, which h2 answers
        self.flush()
