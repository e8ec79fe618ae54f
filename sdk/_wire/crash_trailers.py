"""How the answers of a replica that is killed end: UNAVAILABLE, with the request id, as if it had said so itself.

A process that is killed says nothing. The kernel closes its connections, and an answer that has begun can then only be
reset by Envoy, which gRPC reads as INTERNAL: not a status that anybody retries. So a copy of the connection of each
answer that takes more than some 50 ms goes to a small process (``survivor.py``), and memory that both share says how
that answer would end, and whether it can: between two messages, that is. A short write to a unix socket is never amid
one, since the kernel takes it whole or not at all; after any other the answer can be ended when the kernel has all.

Partly on the way of every message of a stream, and written for speed there. A unary answer is one write, and pays
nothing.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import subprocess
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdk._wire import crash_trailers_process as survivor
from sdk._wire.crash_trailers_process import GOODBYE, PACKET, RECORD, SLOT, SLOTS

logger = logging.getLogger("sdk.wire")

#: Details of such an answer's status.
DIED = "The replica died before its answer was complete."
_STATUS = f"0\r\ngrpc-status: 14\r\ngrpc-message: {DIED}\r\n".encode()
# Seconds between two looks at which answers still go on, which clients have not taken all yet, and what the other
# process had no room for.
_LOOK_S = 0.05
# Bytes that Linux takes on a unix stream socket whole or not at all: a page or more below one of its buffers, which has
# room for 32 KiB and a bit more (unix_stream_sendmsg).
_WHOLE = 1 << 15


def ending(request_id: bytes) -> bytes:
    r"""Return the end of a chunked answer: the last chunk, and the trailers.

    Args:
        request_id: The call's; one that is too long to be kept is left out.

    Example:
        >>> ending(b"7")[-19:]
        b'\r\nrequest_id: 7\r\n\r\n'
    """
    whole = b"%srequest_id: %s\r\n\r\n" % (_STATUS, request_id)
    return whole if len(whole) <= SLOT - RECORD.size else _STATUS + b"\r\n"


class Ending:
    """How one answer would end. Made by :meth:`Endings.begin`."""

    __slots__ = ("_endings", "is_over", "is_ready", "request_id", "slot", "transport", "whole")

    def __init__(self, endings: Endings, transport: Any, request_id: bytes) -> None:
        self._endings = endings
        self.transport = transport
        self.request_id = request_id
        self.slot: int | None = None  # until the other process has the connection
        self.whole = 0
        self.is_ready = False
        self.is_over = False

    def write(self, size: int) -> None:
        """So many bytes are about to be written: unless they go as a whole, the answer can't be ended before them."""
        if self.is_ready and self.transport.get_write_buffer_size() + size > self.whole:
            self.is_ready = False
            self._endings.hold(self)

    def finish(self, size: int) -> None:
        """The answer is about to end by itself, with so many bytes."""
        self.write(size)
        if self.is_ready:
            self.is_over = True
            self._endings.leave(self)
        else:
            self.drop()

    def drop(self) -> None:
        """The answer is over: nobody is there to read it."""
        self.is_over = True
        if self.slot is not None:
            self._endings.take_back(self.slot)


class Endings:
    """How the answers of this process would end.

    Args:
        loop: The loop that all calls are made on.
        give: Sends a packet to the process that survives, with a connection or without; raises ``OSError`` when it
            takes no more at present.
        memory: Shared with that process; bytes that can be set.

    Example:
        >>> import asyncio
        >>> loop = asyncio.new_event_loop()
        >>> endings = Endings(loop, lambda packet, connections: None, bytearray(4 * SLOT))
        >>> loop.close()
    """

    def __init__(self, loop: AbstractEventLoop, give: Callable[[bytes, list[int]], object], memory: Any) -> None:
        self.memory = memory
        self._loop = loop
        self._give = give
        self._unused = iter(range(len(memory) // SLOT))
        self._free: list[int] = []  # those that were used before
        self._young: list[Ending] = []
        self._held: list[Ending] = []
        self._slow: list[Ending] = []
        self._ended: list[int] = []
        self._looks_again = False
        self._is_closed = False

    @classmethod
    def start(cls, loop: AbstractEventLoop) -> Endings | None:
        """Start the process that survives this one; None where there is no way (it takes Linux 5.3)."""
        if not sys.platform.startswith("linux"):
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors: list[int] = []
        with theirs:
            try:
                descriptors.append(os.memfd_create("endings"))
                os.ftruncate(descriptors[0], SLOTS * SLOT)
                descriptors.append(os.pidfd_open(os.getpid()))
                memory = mmap.mmap(descriptors[0], SLOTS * SLOT)
                given = (theirs.fileno(), *descriptors)
                command = [sys.executable, "-I", "-S", str(Path(survivor.__file__)), *map(str, given)]
                subprocess.run(
                    command, pass_fds=given, stdin=subprocess.DEVNULL, start_new_session=True, check=True, timeout=30
                )
            except (OSError, subprocess.SubprocessError) as error:
                ours.close()
                logger.warning("were this replica killed, the streams that it answers would end INTERNAL: %s", error)
                return None
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        ours.setblocking(False)
        return cls(loop, lambda packet, connections: socket.send_fds(ours, [packet], connections), memory)

    def begin(self, transport: Any, request_id: bytes) -> Ending | None:
        """An answer begins on a connection, and its end is not written with it.

        The other process gets the connection only when the answer takes its time: most end before, and pay nothing. It
        has it no longer than that, since a connection on which nothing is going on must close when the replica dies:
        Envoy would send the next call on it.

        Returns:
            What is to be told of that answer from now on; None after :meth:`close`.
        """
        if self._is_closed:
            return None
        begun = Ending(self, transport, request_id)
        self._young.append(begun)
        self._look_again()
        return begun

    def hold(self, held: Ending) -> None:
        """An answer can't be ended until the kernel has what is written to it in this turn of the loop."""
        assert held.slot is not None
        self.memory[held.slot * SLOT] = 0
        self.leave(held)

    def leave(self, changed: Ending) -> None:
        """Leave an answer as it is until this turn of the loop is over."""
        if not self._held:
            self._loop.call_soon(self._release)
        self._held.append(changed)

    def take_back(self, slot: int) -> None:
        """The answer on a connection that the other process has is over."""
        self.memory[slot * SLOT] = 0
        self._ended.append(slot)
        self._tell_ended()

    def close(self) -> None:
        """End the process that survives: this one leaves nothing behind."""
        self._is_closed = True
        self._young.clear()
        try:
            self._give(PACKET.pack(GOODBYE), [])
        except OSError as error:  # it ends with this process then
            logger.warning("the process that would survive this replica is not reached: %s", error)

    # -- inside -------------------------------------------------------------------------------

    def _release(self) -> None:
        held, self._held = self._held, []
        for each in held:
            if each.is_over and not each.is_ready:
                continue  # taken back already
            assert each.slot is not None
            if each.transport.get_write_buffer_size() and not each.transport.is_closing():
                self._slow.append(each)
                self._look_again()
            elif each.is_over:
                self.take_back(each.slot)
            else:
                self.memory[each.slot * SLOT] = 1
                each.is_ready = True

    def _look_again(self) -> None:
        if not self._looks_again:
            self._looks_again = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._looks_again = False
        self._tell_ended()
        young, self._young = self._young, []
        for each in young:
            if not each.is_over and not each.transport.is_closing():  # the descriptor may be another's then
                self._hand_over(each)
        slow, self._slow = self._slow, []
        for each in slow:
            if each.is_ready or not each.is_over:
                self.leave(each)

    def _hand_over(self, young: Ending) -> None:
        slot = self._free.pop() if self._free else next(self._unused, None)
        if slot is not None:
            connection: socket.socket = young.transport.get_extra_info("socket")
            text, offset = ending(young.request_id), slot * SLOT
            RECORD.pack_into(self.memory, offset, False, len(text))
            self.memory[offset + RECORD.size : offset + RECORD.size + len(text)] = text
            try:
                self._give(PACKET.pack(slot), [connection.fileno()])
            except OSError:
                self._free.append(slot)
            else:
                young.slot, young.is_ready = slot, True
                young.whole = _WHOLE if connection.family is socket.AF_UNIX else 0
                young.write(0)
                self.memory[offset] = young.is_ready
                return
        self._young.append(young)  # there may be room at the next look
        self._look_again()

    def _tell_ended(self) -> None:
        while self._ended:
            try:
                self._give(PACKET.pack(self._ended[0]), [])
            except BlockingIOError:
                self._look_again()
                return
            except OSError:  # nobody holds a copy any more
                pass
            self._free.append(self._ended.pop(0))
