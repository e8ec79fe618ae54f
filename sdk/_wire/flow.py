"""Flow control of one call, both ways: a slow handler stops a fast client, a slow client stops a fast handler.

On every request's way, and written for speed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from sdk._wire.context_view import ContextView
from sdk._wire.frames import INFLATE_BYTES, Flagged

if TYPE_CHECKING:
    from sdk._wire.frames import FrameReader, Message

# Bytes of request messages that wait for the handler: above the first the connection is no longer read. Each message
# counts for more than it is long, so that a flood of empty ones is stopped too.
HIGH_WATER, LOW_WATER = 1 << 20, 1 << 19
MESSAGE_COST = 64

# Bytes that a stream sends before other calls get their turn, each message counted longer than it is. A handler that
# never waits, with a client that takes everything, would keep the loop for itself.
BURST, BURST_MESSAGE = 1 << 18, 1024


class FlowControl(ContextView):
    """Base of a call: how much waits on its way in and out."""

    __slots__ = (
        "_burst",
        "_complete",
        "_is_congested",
        "_queued_bytes",
        "_reader",
        "_waiter",
        "_write_waiter",
        "messages",
        "paused",
    )

    if TYPE_CHECKING:
        messages: deque[Message] | None
        paused: bool
        _burst: int
        _complete: bool
        _is_congested: bool
        _queued_bytes: int
        _reader: FrameReader | None
        _waiter: asyncio.Future[None] | None
        _write_waiter: asyncio.Future[None] | None

    def queue_messages(self, data: bytes) -> None:
        """Take bytes of a stream of request messages."""
        assert self.messages is not None
        assert self._reader is not None
        new = self._reader.feed(data)
        if new:
            self.messages.extend(new)
            self._queued_bytes += sum(map(len, new)) + len(new) * MESSAGE_COST
            if self._queued_bytes > HIGH_WATER and not self.paused:
                self.paused = True
                self.transport.pause_reading()
        if new or self._reader.error is not None:
            self._wake_reader()

    def set_writable(self, writable: bool) -> None:
        """The transport's buffer is below (or above) its limit."""
        self.writable = writable
        self._is_congested = not writable
        waiter = self._write_waiter
        if writable and waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait_writable(self) -> None:
        """Wait until the client has taken enough of what was sent; when it has, let other calls have their turn."""
        self._burst = 0
        if not self._is_congested:
            self.writable = True
            await asyncio.sleep(0)
        while self._is_congested and not self._finished:
            self._write_waiter = self.server.loop.create_future()
            await self._write_waiter
        if self._finished:
            await asyncio.sleep(0)  # the cancellation that goes with the end arrives here, unless it was there before:
            raise asyncio.CancelledError  # a handler that swallowed it must not go on for ever

    def _wake_reader(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def next_message(self) -> bytes | bytearray | None:
        """Return the bytes of the next request message, or None after the last.

        Raises:
            FrameError: The client sent something that is not a message.
            asyncio.CancelledError: The client is gone; a stream that was cut never looks complete.
        """
        messages, reader = self.messages, self._reader
        assert messages is not None
        assert reader is not None
        while not messages:
            if self._cancel_reason is not None or (self._finished and not self._complete):
                raise asyncio.CancelledError(self._cancel_reason and self._cancel_reason[1])
            if reader.error is not None:
                raise reader.error
            if self._complete:
                return None
            self._waiter = self.server.loop.create_future()
            await self._waiter
        message = messages.popleft()
        self._queued_bytes -= len(message) + MESSAGE_COST
        if self.paused and self._queued_bytes < LOW_WATER:
            self.paused = False
            self.transport.resume_reading()
        return await self._inflate(reader, message) if isinstance(message, Flagged) else message

    async def _inflate(self, reader: FrameReader, message: Flagged) -> bytes:
        if len(message) < INFLATE_BYTES:
            return reader.decompress(message)
        try:
            return await asyncio.to_thread(reader.decompress, message)
        except asyncio.CancelledError:
            # It may have been a wait of the handler's own (``wait_for``): the message is there when it asks again.
            assert self.messages is not None
            self.messages.appendleft(message)
            self._queued_bytes += len(message) + MESSAGE_COST
            raise
