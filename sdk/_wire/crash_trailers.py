"""Trailers for the streams of a replica that is killed: UNAVAILABLE with the request id, as if it had sent them.

A killed process sends nothing. The kernel closes its connections, and Envoy can then only reset a response that has
begun, which gRPC reads as INTERNAL: a status that nobody retries
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors). So a copy of the connection of each response
that takes longer than about 5 ms goes to a small process (``crash_trailers_process.py``), and memory that both share
holds the trailers of that response, and a flag for whether they may be sent: only between two messages. A short write
to a unix socket never splits a message, since the kernel takes it whole or not at all; after any other write the
trailers may follow once the kernel has taken all of it.

Partly on the path of every message of a stream, and written for speed there. A unary response is one write, and pays
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

from sdk._replica_protocol import REPLICA_DIED
from sdk._wire import crash_trailers_process
from sdk._wire.crash_trailers_process import PACKET, RECORD, SHUTDOWN, SLOT, SLOTS

logger = logging.getLogger("sdk.wire")

_STATUS = f"0\r\ngrpc-status: 14\r\ngrpc-message: {REPLICA_DIED}\r\n".encode()
# Seconds after which the other process gets the responses that are still open. To pass a connection costs about as much
# as a short call.
_YOUNG_S = 0.005
# Seconds between two checks of the bytes that clients have not read yet, and of what the other process had no room for.
_CHECK_S = 0.05
# Bytes that Linux takes on a unix stream socket whole or not at all: a page or more below one of its buffers, which has
# room for slightly more than 32 KiB (unix_stream_sendmsg).
_ATOMIC_BYTES = 1 << 15


def encode_trailers(request_id: bytes) -> bytes:
    r"""Return the end of a chunked response: the last chunk, and the trailers.

    Args:
        request_id: The call's; left out if it is too long for its slot.

    Example:
        >>> encode_trailers(b"7")[-19:]
        b'\r\nrequest_id: 7\r\n\r\n'
    """
    whole = b"%srequest_id: %s\r\n\r\n" % (_STATUS, request_id)
    return whole if len(whole) <= SLOT - RECORD.size else _STATUS + b"\r\n"


class StreamGuard:
    """The crash trailers of one response. Made by :meth:`CrashTrailers.guard`.

    Attributes:
        slot: The response's part of the shared memory; None until the other process has the connection.
        atomic_bytes: Most bytes that the kernel takes whole or not at all on this connection.
        is_ready: True while the trailers may be sent.
        is_over: True once the response has ended.
    """

    __slots__ = ("_owner", "atomic_bytes", "is_over", "is_ready", "request_id", "slot", "transport")

    def __init__(self, owner: CrashTrailers, transport: Any, request_id: bytes) -> None:
        self._owner = owner
        self.transport = transport
        self.request_id = request_id
        self.slot: int | None = None
        self.atomic_bytes = 0
        self.is_ready = False
        self.is_over = False

    def before_write(self, size: int) -> None:
        """Withhold the trailers before a write of this many bytes, unless the kernel takes it whole."""
        if self.is_ready and self.transport.get_write_buffer_size() + size > self.atomic_bytes:
            self.is_ready = False
            self._owner.withhold(self)

    def before_end(self, size: int) -> None:
        """Give the trailers up before the response's own end, of this many bytes."""
        self.before_write(size)
        if self.is_ready:
            self.is_over = True
            self._owner.update_later(self)
        else:
            self.drop()

    def end(self) -> bytes:
        """Return the end of the response."""
        return encode_trailers(self.request_id)

    def drop(self) -> None:
        """Give the trailers up: the client is gone, or the response ends."""
        self.is_over = True
        if self.slot is not None:
            self._owner.take_back(self.slot)


class GuardWithEnd(StreamGuard):
    """The crash trailers of a response in another protocol: in place of a request id it has the whole end."""

    __slots__ = ()

    def end(self) -> bytes:
        """Return the end of the response; empty if it is too long for its slot."""
        return self.request_id if len(self.request_id) <= SLOT - RECORD.size else b""


class CrashTrailers:
    """The crash trailers of all streams of this process.

    Args:
        loop: The loop of all calls.
        send: Sends a packet to the other process, with a connection or without; raises ``OSError`` if it has no room
            at present.
        memory: Shared with that process; bytes that can be set.

    Example:
        >>> import asyncio
        >>> loop = asyncio.new_event_loop()
        >>> crash_trailers = CrashTrailers(loop, lambda packet, connections: None, bytearray(4 * SLOT))
        >>> loop.close()
    """

    def __init__(self, loop: AbstractEventLoop, send: Callable[[bytes, list[int]], object], memory: Any) -> None:
        self.memory = memory
        self._loop = loop
        self._send = send
        self._unused = iter(range(len(memory) // SLOT))
        self._free: list[int] = []  # slots that were used before
        self._young: list[StreamGuard] = []  # the other process gets these soon
        self._without_room: list[StreamGuard] = []  # it had no room for these
        self._changed: list[StreamGuard] = []  # updated at the end of this turn of the loop
        self._slow: list[StreamGuard] = []  # the kernel has not taken all of these yet
        self._ended: list[int] = []  # slots that the other process is yet to give back
        self._check_is_due = False
        self._is_closed = False

    @classmethod
    def start(cls, loop: AbstractEventLoop) -> CrashTrailers | None:
        """Start the process that survives this one; return None where that is impossible (it takes Linux 5.3)."""
        if not sys.platform.startswith("linux"):
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors: list[int] = []
        with theirs:
            try:
                descriptors.append(os.memfd_create("crash_trailers"))
                os.ftruncate(descriptors[0], SLOTS * SLOT)
                descriptors.append(os.pidfd_open(os.getpid()))
                memory = mmap.mmap(descriptors[0], SLOTS * SLOT)
                passed = (theirs.fileno(), *descriptors)
                script = Path(crash_trailers_process.__file__)
                command = [sys.executable, "-I", "-S", str(script), *map(str, passed)]
                subprocess.run(
                    command, pass_fds=passed, stdin=subprocess.DEVNULL, start_new_session=True, check=True, timeout=30
                )
            except (OSError, subprocess.SubprocessError) as error:
                ours.close()
                logger.warning("if this replica is killed, its open streams will end INTERNAL: %s", error)
                return None
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        ours.setblocking(False)
        return cls(loop, lambda packet, connections: socket.send_fds(ours, [packet], connections), memory)

    def guard(self, transport: Any, request_id: bytes, kind: type[StreamGuard] = StreamGuard) -> StreamGuard | None:
        """Guard a response that begins on a connection, and whose trailers are not written with it.

        The other process gets the connection only if the response takes its time: most end sooner, and pay nothing. It
        gives the connection up with the end of the response, since an idle connection must close when the replica dies:
        Envoy would send the next call on it.

        Returns:
            The guard to notify of each write to that response; None after :meth:`close`.
        """
        if self._is_closed:
            return None
        guard = kind(self, transport, request_id)
        if not self._young:
            self._loop.call_later(_YOUNG_S, self._hand_over_young)
        self._young.append(guard)
        return guard

    def withhold(self, guard: StreamGuard) -> None:
        """Withhold a response's trailers until the kernel has taken all that is written in this turn of the loop."""
        assert guard.slot is not None
        self.memory[guard.slot * SLOT] = 0
        self.update_later(guard)

    def update_later(self, guard: StreamGuard) -> None:
        """Leave a response as it is until this turn of the loop is over."""
        if not self._changed:
            self._loop.call_soon(self._update_changed)
        self._changed.append(guard)

    def take_back(self, slot: int) -> None:
        """Have the other process close its copy of a connection whose response is over."""
        self.memory[slot * SLOT] = 0
        self._ended.append(slot)
        self._send_ended()

    def close(self) -> None:
        """End the other process: this one leaves no open stream behind."""
        self._is_closed = True
        self._young.clear()
        self._without_room.clear()
        try:
            self._send(PACKET.pack(SHUTDOWN), [])
        except OSError as error:  # it ends with this process then
            logger.warning("the process for crash trailers can't be reached: %s", error)

    # -- inside -------------------------------------------------------------------------------

    def _update_changed(self) -> None:
        changed, self._changed = self._changed, []
        for guard in changed:
            if guard.is_over and not guard.is_ready:
                continue  # taken back already
            assert guard.slot is not None
            if guard.transport.get_write_buffer_size() and not guard.transport.is_closing():
                self._slow.append(guard)
                self._schedule_check()
            elif guard.is_over:
                self.take_back(guard.slot)
            else:
                self.memory[guard.slot * SLOT] = 1
                guard.is_ready = True

    def _schedule_check(self) -> None:
        if not self._check_is_due:
            self._check_is_due = True
            self._loop.call_later(_CHECK_S, self._check)

    def _check(self) -> None:
        self._check_is_due = False
        self._send_ended()
        waiting, self._without_room = self._without_room, []
        self._hand_over(waiting)
        slow, self._slow = self._slow, []
        for guard in slow:
            if guard.is_ready or not guard.is_over:
                self.update_later(guard)

    def _hand_over_young(self) -> None:
        self._send_ended()
        young, self._young = self._young, []
        self._hand_over(young)

    def _hand_over(self, guards: list[StreamGuard]) -> None:
        for guard in guards:
            if not guard.is_over and not guard.transport.is_closing():  # the descriptor may be another's then
                self._hand_over_one(guard)

    def _hand_over_one(self, guard: StreamGuard) -> None:
        slot = self._free.pop() if self._free else next(self._unused, None)
        if slot is not None:
            connection: socket.socket = guard.transport.get_extra_info("socket")
            trailers, offset = guard.end(), slot * SLOT
            RECORD.pack_into(self.memory, offset, False, len(trailers))
            self.memory[offset + RECORD.size : offset + RECORD.size + len(trailers)] = trailers
            try:
                self._send(PACKET.pack(slot), [connection.fileno()])
            except OSError:
                self._free.append(slot)
            else:
                guard.slot, guard.is_ready = slot, True
                guard.atomic_bytes = _ATOMIC_BYTES if connection.family is socket.AF_UNIX else 0
                guard.before_write(0)
                self.memory[offset] = guard.is_ready
                return
        self._without_room.append(guard)
        self._schedule_check()

    def _send_ended(self) -> None:
        while self._ended:
            try:
                self._send(PACKET.pack(self._ended[0]), [])
            except BlockingIOError:
                self._schedule_check()
                return
            except OSError:  # the other process has died, and its copies are closed
                pass
            self._free.append(self._ended.pop(0))
