"""The end of a replica's process when its event loop has ended or must end, and the watch over that loop.

Ray Serve runs user code on an event loop in a separate thread. ``SystemExit`` or ``KeyboardInterrupt`` in a task ends
that thread (https://docs.python.org/3/library/asyncio-task.html#task-object) and nothing else: the process lives on,
accepts connections, and answers nobody. So the process ends, and Ray Serve starts another replica.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk._wire.call import Call

logger = logging.getLogger("ray.serve")

# Seconds between two looks at whether the kernel has taken an answer, and seconds after which nobody waits for that.
_LOOK_S = 0.01
_ANSWER_S = 1.0
# Seconds between two checks of the loop, and the number of checks that it misses before it is reported as blocked.
_CHECK_S = 1.5
_MISSED_CHECKS = 2


def end_process(reason: str) -> None:
    """Log a reason and end this process, without a word to Ray: it starts another as after any crash."""
    logger.critical("%s; Ray Serve starts another replica", reason)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)  # sys.exit would end the calling thread only


def end_after_answer(call: Call, error: BaseException, end: Callable[[str], object] = end_process) -> None:
    """End this process once the kernel has taken the answer of a call.

    Args:
        call: The call; it has ended.
        error: The exception of its handler.
        end: Ends the process, for a reason.
    """
    loop, transport = call.host.loop, call.transport
    reason = f"the handler of {call.path.decode('latin-1')} raised {error!r}, request_id {call.request_id}"
    last_look = loop.time() + _ANSWER_S

    def look() -> None:
        if transport.get_write_buffer_size() and loop.time() < last_look:
            loop.call_later(_LOOK_S, look)
        else:
            end(reason)

    loop.call_later(_LOOK_S, look)


class LoopWatch:
    """Watches the event loop of all handlers: ends the process if it has ended, and logs where it is blocked.

    Args:
        loop: The loop, which runs in this thread.
        end: Ends the process, for a reason.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, end: Callable[[str], object] = end_process) -> None:
        self._loop = loop
        self._end = end
        self._loop_thread = threading.current_thread()
        self._answered = True
        self._missed = 0
        self._is_stopped = False

    def start(self) -> None:
        """Check at intervals and when the thread of the loop ends, in another thread, until :meth:`stop`."""
        threading.Thread(target=self._run, name="grpc-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop watching: the replica ends anyway."""
        self._is_stopped = True

    def check(self) -> None:
        """Check once: the loop must have answered the last check."""
        if not self._loop.is_running():
            self._is_stopped = True
            self._end("the event loop of the handlers has ended, by SystemExit or KeyboardInterrupt in a task")
        elif self._answered:
            if self._missed >= _MISSED_CHECKS:
                logger.warning("the event loop runs again, after %.0f s", self._missed * _CHECK_S)
            self._answered, self._missed = False, 0
            self._loop.call_soon_threadsafe(self._answer)
        else:
            self._missed += 1
            if self._missed == _MISSED_CHECKS:
                self._log_blocked()

    def _run(self) -> None:
        while not self._is_stopped:
            self._loop_thread.join(_CHECK_S)
            if not self._is_stopped:
                self.check()

    def _answer(self) -> None:
        self._answered = True

    def _log_blocked(self) -> None:
        frame = sys._current_frames().get(self._loop_thread.ident or 0)
        logger.warning(
            "the event loop is blocked for %.0f s: this replica answers nobody, and its ingress sends new calls to "
            "other replicas. Make the handler a plain `def`, which runs in a thread, or call asyncio.to_thread. It is "
            "at:\n%s",
            self._missed * _CHECK_S,
            "".join(traceback.format_stack(frame)).rstrip(),
        )
