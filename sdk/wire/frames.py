"""Length-prefixed messages (gRPC over HTTP/2 protocol, "Length-Prefixed-Message"): one flag byte, four bytes of length.

On every request's way, and written for speed.
"""

from __future__ import annotations

import struct
import zlib

PREFIX_LENGTH = 5
ACCEPT_ENCODING = b"identity, deflate, gzip"

_PREFIX = struct.Struct(">BI")
unpack_prefix = _PREFIX.unpack_from
pack_prefix = _PREFIX.pack

# What zlib must expect for each ``grpc-encoding``: a gzip header, or the zlib header that HTTP calls deflate.
WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class FrameError(Exception):
    """The peer sent something that is not a sequence of gRPC messages, or a message that is refused.

    Attributes:
        code: Number of the gRPC status code that answers it.
    """

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code = code


def is_known_encoding(encoding: bytes) -> bool:
    """Tell whether messages in this ``grpc-encoding`` can be read."""
    return encoding == b"identity" or encoding in WINDOW_BITS


class FrameReader:
    """Cuts the bytes of a request body into messages, however the bytes are split.

    Args:
        max_length: Longest message accepted, in bytes after decompression.
        encoding: Value of the ``grpc-encoding`` header.
    """

    __slots__ = ("_buffer", "_encoding", "_max_length")

    def __init__(self, max_length: int, encoding: bytes = b"identity") -> None:
        self._buffer = bytearray()
        self._max_length = max_length
        self._encoding = encoding

    @property
    def buffered(self) -> int:
        """How many bytes of an incomplete message are held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the body and return the messages that they complete.

        Raises:
            FrameError: A message is too long, or compressed in a way that was not announced.
        """
        buffer = self._buffer
        buffer += data
        messages = []
        start, end = 0, len(buffer)
        while end - start >= PREFIX_LENGTH:
            flag, length = unpack_prefix(buffer, start)
            if length > self._max_length:
                raise too_long(length, self._max_length)
            stop = start + PREFIX_LENGTH + length
            if stop > end:
                break
            message = bytes(buffer[start + PREFIX_LENGTH : stop])
            messages.append(decompress(flag, message, self._encoding, self._max_length) if flag else message)
            start = stop
        if start:
            del buffer[:start]
        return messages


def only_message(body: bytes, max_length: int, encoding: bytes) -> bytes:
    """Return the one message of a complete body: the fast path of methods with one request message.

    Raises:
        FrameError: The body is not exactly one message, or the message is refused.
    """
    if len(body) < PREFIX_LENGTH:
        raise FrameError(
            13, "the request ended before its message was complete" if body else "the request has no message"
        )
    flag, length = unpack_prefix(body)
    if length > max_length:
        raise too_long(length, max_length)
    if length != len(body) - PREFIX_LENGTH:
        raise FrameError(
            13,
            "the request ended before its message was complete"
            if length > len(body) - PREFIX_LENGTH
            else "the request has more than one message, and the method takes one",
        )
    message = body[PREFIX_LENGTH:]
    return decompress(flag, message, encoding, max_length) if flag else message


def too_long(length: int, max_length: int) -> FrameError:
    """Return the refusal of a message that is too long."""
    return FrameError(
        8, f"request message of {length} bytes is longer than the limit of {max_length} (max_receive_message_length)"
    )


def decompress(flag: int, message: bytes, encoding: bytes, max_length: int) -> bytes:
    """Return the plain bytes of a compressed message.

    Raises:
        FrameError: The flag or the data are not what ``grpc-encoding`` announced, or the result is too long.
    """
    if flag != 1:
        raise FrameError(13, f"message with the flag {flag}; only 0 and 1 are defined")
    window_bits = WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise FrameError(13, f"compressed message on a call with grpc-encoding {encoding.decode('latin-1')!r}")
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(message, max_length + 1)
    except zlib.error as error:
        raise FrameError(13, f"message is not valid {encoding.decode('latin-1')}: {error}") from None
    if len(plain) > max_length:
        raise too_long(len(plain), max_length)
    if not inflater.eof:
        raise FrameError(13, f"message is not valid {encoding.decode('latin-1')}: it ends too early")
    return plain
