"""``sdk run`` as the first process of a container, which has to collect the processes that others leave behind.

The kernel gives it every process whose parent has ended (https://man7.org/linux/man-pages/man7/pid_namespaces.7.html).
Ray and ``subprocess`` wait for their processes by id, so that a handler of SIGCHLD could take them away.
The command therefore runs in a child, and the first process does nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

# The signals that others send to end a program, or to inform it.
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def continue_in_child() -> None:
    """Continue in a child process if this is the first process, which then ends with the exit code of that one.

    Call it before the process starts a thread.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until it is clear who gets them
    child = os.fork()
    if child:
        _collect(child)
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _collect(child: int) -> NoReturn:
    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # collected a moment ago
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            # The kernel ends what is left of the container. A shell shows the end by a signal in the same way.
            os._exit(code if code >= 0 else 128 - code)


def _take_terminal() -> None:
    """Let Ctrl-C reach this process alone: the first one would forward it, and it would count twice."""
    os.setpgid(0, 0)
    if sys.stdin is not None and sys.stdin.isatty():
        ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
        signal.signal(signal.SIGTTOU, ignored)
