"""The messages that a task sends between two waits, as one chunk of an HTTP body.

A handler that yields a thousand small messages without waiting would otherwise make a thousand chunks, and each costs
its receiver a callback of the parser, in Envoy too. No message waits for one that takes long to compute, as the tokens
of a model that blocks the loop do. On the path of every message of a stream, and written for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from sdk._wire.frames import pack_prefix

# Bytes that each message counts for in addition to its length.
MESSAGE_BURST = 1024
# Bytes, counted so, from which a chunk is written before the task waits: flow control has to see it.
_CHUNK = 1 << 16
# Seconds without a wait or a chunk after which the next message is written at once.
_SLOW_S = 0.001


class Steps(Coroutine[Any, Any, None]):
    r"""A coroutine for a task, which collects the messages that are sent while it runs.

    Args:
        coroutine: The coroutine that sends messages.
        write: Writes a chunk; takes its bytes, those that its messages count for, and the number of messages.

    Attributes:
        is_running: True during a step, which is all that runs between two waits. Messages are added only then.

    Example:
        >>> async def send() -> None:
        ...     steps.add(0, 3, b"one")
        ...     steps.add(0, 3, b"two")
        >>> steps = Steps(send(), lambda chunk, burst, messages: print(chunk))
        >>> try:
        ...     steps.send(None)
        ... except StopIteration:
        ...     pass
        b'10\r\n\x00\x00\x00\x00\x03one\x00\x00\x00\x00\x03two\r\n'
    """

    __slots__ = ("_burst", "_coroutine", "_pieces", "_slow_from", "_write", "is_running")

    def __init__(self, coroutine: Coroutine[Any, Any, None], write: Callable[[bytes, int, int], object]) -> None:
        self._coroutine = coroutine
        self._write = write
        self._pieces: list[bytes] = []
        self._burst = 0
        self._slow_from = 0.0
        self.is_running = False

    def add(self, flag: int, length: int, data: bytes) -> None:
        """Send a message with others, at the end of the step or before.

        Args:
            flag: 1 if it is compressed, otherwise 0.
            length: Its length.
            data: Its bytes.
        """
        pieces = self._pieces
        pieces += (pack_prefix(flag, length), data)
        self._burst = burst = self._burst + length + MESSAGE_BURST
        if burst > _CHUNK or monotonic() > self._slow_from:
            self.flush()
            self._slow_from = monotonic() + _SLOW_S

    def flush(self) -> None:
        """Write what was added."""
        if self._pieces:
            body = b"".join(self._pieces)
            messages = len(self._pieces) >> 1
            self._pieces.clear()
            burst, self._burst = self._burst, 0
            self._write(b"%x\r\n%s\r\n" % (len(body), body), burst, messages)

    # -- Coroutine: what a task calls ---------------------------------------------------------

    def send(self, value: Any) -> Any:
        self.is_running = True
        self._slow_from = monotonic() + _SLOW_S
        try:
            return self._coroutine.send(value)
        finally:
            self.is_running = False
            self.flush()

    def throw(self, *error: Any) -> Any:
        self.is_running = True
        self._slow_from = monotonic() + _SLOW_S
        try:
            return self._coroutine.throw(*error)
        finally:
            self.is_running = False
            self.flush()

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()
