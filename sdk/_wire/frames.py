"""gRPC's length-prefixed messages: one byte of flags, four bytes of length, the message.

See "Length-Prefixed-Message" in https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests. On the path of
every request, and written for speed.
"""

from __future__ import annotations

import struct
import zlib
from typing import final

from sdk._wire.metadata import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED

PREFIX_LENGTH = 5
# Bytes from which avoiding a copy of a message is worth a few more steps.
LARGE = 1 << 16
ACCEPT_ENCODING = b"identity, deflate, gzip"

# Bytes from which a compressed message is decompressed in a thread: it may become a thousand times as long (2 MB in
# 10 ms), and the other calls of the replica would wait for it. zlib releases the GIL.
INFLATE_IN_THREAD_BYTES = 2 << 10

_PREFIX = struct.Struct(">BI")
unpack_prefix = _PREFIX.unpack_from
pack_prefix = _PREFIX.pack

_CUT_SHORT = "the request ended before its message was complete"

# The header that zlib expects for each ``grpc-encoding``: that of gzip, or that of zlib, which HTTP calls deflate
# (https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1.2).
WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class FrameError(Exception):
    """Error of a peer that sent something other than gRPC messages, or a message that is refused.

    Attributes:
        code: Number of the gRPC status code to answer with.
    """

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code = code


class MalformedRequest(FrameError):
    """Error of a peer whose bytes are not what they should be: gRPC calls it INTERNAL, HTTP a bad request."""

    def __init__(self, details: str) -> None:
        super().__init__(INTERNAL, details)


def is_known_encoding(encoding: bytes) -> bool:
    """Return True if messages in this ``grpc-encoding`` can be read."""
    return encoding == b"identity" or encoding in WINDOW_BITS


@final
class FlaggedMessage:
    """A message with flags, as received: decompressed when the handler asks for it, one at a time.

    A few bytes can decompress to the longest message that is accepted, and one read can hold many of those.
    """

    __slots__ = ("data", "flag")

    def __init__(self, flag: int, data: bytes | bytearray) -> None:
        self.flag = flag
        self.data = data

    def __len__(self) -> int:
        return len(self.data)


Message = bytes | bytearray | FlaggedMessage


class FrameReader:
    """Cuts the bytes of a request body into messages, however the bytes are split.

    Args:
        max_length: Longest message accepted, in bytes before and after decompression.
        encoding: Value of the ``grpc-encoding`` header.

    Attributes:
        error: The error behind the messages that :meth:`feed` returned; the reader then ignores the rest of the body.
    """

    __slots__ = ("_buffer", "_encoding", "_max_length", "error")

    def __init__(self, max_length: int, encoding: bytes = b"identity") -> None:
        self._buffer = bytearray()
        self._max_length = max_length
        self._encoding = encoding
        self.error: FrameError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes of the body and return the messages that they complete."""
        messages: list[Message] = []
        if self.error is not None:
            return messages
        if self._buffer:
            data = self._complete(data, messages)
        start, end, limit = 0, len(data), self._max_length
        while (begin := start + PREFIX_LENGTH) <= end:
            flag, length = unpack_prefix(data, start)
            if length > limit:
                self.error = too_long(length, limit)
                return messages
            stop = begin + length
            if stop > end:
                break
            messages.append(FlaggedMessage(flag, data[begin:stop]) if flag else data[begin:stop])
            start = stop
        if start < end:
            self._buffer += data[start:]
        return messages

    def _complete(self, data: bytes, messages: list[Message]) -> bytes:
        """Add bytes to those of an incomplete message; return those that are left to cut."""
        buffer = self._buffer
        buffer += data
        if len(buffer) >= PREFIX_LENGTH:
            flag, length = unpack_prefix(buffer)
            stop = PREFIX_LENGTH + length
            if stop > len(buffer) and length <= self._max_length:
                return b""
            if LARGE <= length <= self._max_length:
                # The buffer itself is the message: a long one is not copied.
                data = bytes(buffer[stop:])
                del buffer[stop:], buffer[:PREFIX_LENGTH]
                messages.append(FlaggedMessage(flag, buffer) if flag else buffer)
                self._buffer = bytearray()
                return data
        data = bytes(buffer)
        buffer.clear()
        return data

    def end(self) -> None:
        """Take the end of the body; an incomplete message is an error."""
        if self._buffer and self.error is None:
            self.error = MalformedRequest(_CUT_SHORT)

    def decompress(self, message: FlaggedMessage) -> bytes:
        """Return the plain bytes of a message that has flags.

        Raises:
            FrameError: As :func:`decompress`.
        """
        return decompress(message.flag, message.data, self._encoding, self._max_length)


def extend_body(body: bytes | bytearray, data: bytes, max_length: int) -> bytearray:
    """Return the first pieces of a body that is one message, with the next piece appended.

    Raises:
        FrameError: Its length is over the limit, or the body is longer than its message: the rest is not kept.
    """
    longer = body if isinstance(body, bytearray) else bytearray(body)
    longer += data
    if len(longer) >= PREFIX_LENGTH:
        length = unpack_prefix(longer)[1]
        if length > max_length:
            raise too_long(length, max_length)
        if len(longer) > PREFIX_LENGTH + length:
            raise _extra_data()
    return longer


def single_message(body: bytes | bytearray, max_length: int, encoding: bytes) -> bytes | bytearray:
    """Return the one message of a complete body; the fast path of methods with one request message.

    Args:
        body: The body; a bytearray becomes the message, so that a long one is not copied.
        max_length: Longest message accepted, in bytes after decompression.
        encoding: Value of the ``grpc-encoding`` header.

    Raises:
        FrameError: The body is not exactly one message, or the message is refused.
    """
    if len(body) < PREFIX_LENGTH:
        raise MalformedRequest(_CUT_SHORT) if body else no_message()
    flag, length = unpack_prefix(body)
    if length > max_length:
        raise too_long(length, max_length)
    if length != len(body) - PREFIX_LENGTH:
        raise MalformedRequest(_CUT_SHORT) if length > len(body) - PREFIX_LENGTH else _extra_data()
    message: bytes | bytearray
    if isinstance(body, bytearray):
        del body[:PREFIX_LENGTH]
        message = body
    else:
        message = body[PREFIX_LENGTH:]
    return decompress(flag, message, encoding, max_length) if flag else message


def inflate_body(body: bytes | bytearray, max_length: int, encoding: bytes) -> bytearray:
    """Return the uncompressed form of a complete body that is one compressed message.

    Raises:
        FrameError: As :func:`single_message`.
    """
    message = single_message(body, max_length, encoding)
    plain = bytearray(pack_prefix(0, len(message)))
    plain += message
    return plain


# "Request cardinality violation": https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
def no_message() -> FrameError:
    """Return the error for a request without its message."""
    return FrameError(UNIMPLEMENTED, "the request has no message, and the method takes one")


def _extra_data() -> FrameError:
    return FrameError(UNIMPLEMENTED, "the request has more than one message, and the method takes one")


def too_long(length: int, max_length: int) -> FrameError:
    """Return the error for a message that is too long."""
    return FrameError(
        RESOURCE_EXHAUSTED,
        f"request message of {length} bytes is longer than the limit of {max_length} (max_receive_message_length)",
    )


def decompress(flag: int, message: bytes | bytearray, encoding: bytes, max_length: int) -> bytes:
    """Return the plain bytes of a compressed message.

    Raises:
        FrameError: The flag or the data do not match ``grpc-encoding``, or the result is too long.
    """
    if flag != 1:
        raise FrameError(INTERNAL, f"message with the flag {flag}; only 0 and 1 are defined")
    window_bits = WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise FrameError(INTERNAL, f"compressed message on a call with the encoding {encoding.decode('latin-1')!r}")
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(message, max_length + 1)
    except zlib.error as error:
        raise MalformedRequest(f"message is not valid {encoding.decode('latin-1')}: {error}") from None
    if len(plain) > max_length:
        raise too_long(len(plain), max_length)
    if not inflater.eof or inflater.unused_data:
        end = "more follows its end" if inflater.eof else "it ends too early"
        raise MalformedRequest(f"message is not valid {encoding.decode('latin-1')}: {end}")
    return plain
