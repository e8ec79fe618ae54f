"""Accept connections in a thread while the event loop is busy.

Envoy opens a connection for each call that finds none idle. While a handler blocks the loop, nobody accepts them, and
the kernel keeps no more than the listener's backlog (``net.core.somaxconn``, 4,096 by default): after that, connecting
to a unix socket fails at once, and the call with it. So a thread accepts what the loop has not accepted within a
moment. These connections wait in this process until the loop has time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

# Seconds that the loop gets to accept a connection itself; Envoy opens fewer than a backlog meanwhile.
_PATIENCE_S = 0.02
# PyDLL keeps the GIL during a call. If it were released for each connection, a loop that runs Python would return it
# only after 5 ms each time (sys.getswitchinterval).
_accept = ctypes.PyDLL(None).accept


class _Listener(NamedTuple):
    """A listener as it is watched."""

    family: int
    new_connection: Callable[[], asyncio.Protocol]
    context: ssl.SSLContext | None


class LateAccepts:
    """The thread. It starts with the first listener.

    Args:
        loop: The event loop.
        count_room: Returns the number of further connections that the process has room for.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count_room: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._count_room = count_room
        self._listeners: dict[int, _Listener] = {}
        self._accepted: deque[tuple[socket.socket, _Listener]] = deque()
        self._adoptions: set[asyncio.Task[None]] = set()
        self._poll = select.poll()
        self._woken, self._wake = os.pipe()
        self._poll.register(self._woken, select.POLLIN)
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="late-accepts", daemon=True)

    def watch(
        self,
        listener: asyncio.Server,
        new_connection: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Accept connections of a listener, too.

        Args:
            listener: The listener.
            new_connection: Makes the protocol of a connection.
            context: The TLS context of the listener; None without TLS.
        """
        for listening in listener.sockets:
            copy = os.dup(listening.fileno())  # its number can't become that of another file
            self._listeners[copy] = _Listener(listening.family, new_connection, context)
            self._poll.register(copy, select.POLLIN)
        if self._thread.is_alive():
            os.write(self._wake, b"w")
        else:
            self._thread.start()

    async def stop(self) -> None:
        """End the thread, and return when the loop has all its connections."""
        self._is_stopped = True
        os.write(self._wake, b"s")
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        for number in (*self._listeners, self._woken, self._wake):
            os.close(number)
        self._adopt()
        while self._adoptions:
            await asyncio.wait(self._adoptions)

    def _run(self) -> None:
        while not self._is_stopped:  # set before the wake-up that this may have read
            self._poll.poll()
            if self._is_stopped:
                return
            time.sleep(_PATIENCE_S)
            for number, _ in self._poll.poll(0):
                if number == self._woken:
                    os.read(self._woken, 64)
                else:
                    self._accept_waiting(number)
            if self._accepted:
                try:
                    self._loop.call_soon_threadsafe(self._adopt)
                except RuntimeError:  # the loop is closed
                    return

    def _accept_waiting(self, listening: int) -> None:
        room = self._count_room() - len(self._accepted)
        # The loop has set O_NONBLOCK on the listener: if no connection waits, this returns -1.
        while room > 0 and (number := _accept(listening, None, None)) >= 0:
            listener = self._listeners[listening]
            accepted = socket.socket(listener.family, socket.SOCK_STREAM, fileno=number)
            self._accepted.append((accepted, listener))
            room -= 1

    def _adopt(self) -> None:
        while self._accepted:
            task = self._loop.create_task(self._connect(*self._accepted.popleft()))
            self._adoptions.add(task)
            task.add_done_callback(self._adoptions.discard)

    async def _connect(self, accepted: socket.socket, listener: _Listener) -> None:
        accepted.setblocking(False)
        accepted.set_inheritable(False)
        with contextlib.suppress(OSError):  # its peer has closed it
            await self._loop.connect_accepted_socket(listener.new_connection, accepted, ssl=listener.context)
            return
        accepted.close()
