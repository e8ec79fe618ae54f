"""The event loop of calls that are made in threads without one: in a sync handler, or in a program."""

from __future__ import annotations

import asyncio
import os
import threading

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_process = 0


def background_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; the first call in a process starts its thread."""
    global _loop, _process
    with _lock:
        if _loop is None or _process != os.getpid():  # a fork has no threads
            import uvloop  # not before a program needs it

            _loop, _process = uvloop.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="grpc-handles", daemon=True).start()
        return _loop
