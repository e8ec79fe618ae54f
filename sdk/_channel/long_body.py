"""The rest of a long response message, which the kernel writes into the message's own buffer.

A connection otherwise gets its bytes in pieces, and each piece is copied twice before the message is whole: for a
message of a megabyte that is a tenth of the caller's time.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

# Bytes that are read before the length of a message is known.
_FIRST_BYTES = 1 << 10
# https://docs.python.org/3/c-api/bytearray.html#c.PyByteArray_Resize
_resize = ctypes.pythonapi.PyByteArray_Resize
_resize.argtypes = (ctypes.py_object, ctypes.c_ssize_t)


def unfilled(length: int) -> bytearray:
    """Return a buffer that has to be filled: its bytes are any."""
    body = bytearray()
    _resize(body, length)
    return body


class LongBody(asyncio.BufferedProtocol):
    """Reads in place of a connection's own protocol until the message is whole.

    Args:
        protocol: The connection's own protocol.
        transport: Its transport.
        body: Buffer of the whole chunk: the message with its prefix.
        filled: Bytes of it that have arrived.
        on_whole: Called when all have, with the body, which may not be resized before it returns.
    """

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        transport: asyncio.Transport,
        body: bytearray,
        filled: int,
        on_whole: Callable[[Any], None],
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._body = body
        self._rest = memoryview(body)[filled:]
        self._on_whole = on_whole
        transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        self._rest = self._rest[nbytes:]
        if not self._rest:
            body = self._body
            del self._body, self._rest  # uvloop keeps this object, and a bytearray with views can't be resized
            self._transport.set_protocol(self._protocol)
            self._on_whole(body)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class FirstBytes(LongBody):
    """Reads only the first bytes of a response that may be long: what is read with them is copied.

    Args:
        protocol: The connection's own protocol, which gets them.
        transport: Its transport.
    """

    def __init__(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        super().__init__(protocol, transport, bytearray(_FIRST_BYTES), 0, protocol.data_received)

    def buffer_updated(self, nbytes: int) -> None:
        first = bytes(self._rest[:nbytes])
        self._transport.set_protocol(self._protocol)
        self._on_whole(first)
