"""The process between a proxy actor and its Envoy: Envoy outlives the actor, and never Ray's node.

Run as a script by a Python without site-packages, so it imports nothing but the standard library and takes little
memory. It is nobody's child and in a session of its own: what ends the actor does not reach it. It starts Envoy again
when Envoy dies, and ends it, and removes the folder, when Ray's node ends, when an actor says so, and when no actor has
been connected for a while.

An actor connects to ``control.sock`` in the folder and gets a line of JSON, a :class:`EnvoyState`, now and after each
change. The line ``stop`` ends everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from typing import Any, NamedTuple, NoReturn

CONFIG, CONTROL, LOG = "supervisor.json", "control.sock", "supervisor.log"
_PR_SET_PDEATHSIG = 1
# Seconds that Envoy gets to end by itself.
_STOP_PATIENCE_S = 3.0
_NODE_ENDED, _SIGTERM = "Ray's node has ended", "SIGTERM"


class SupervisorConfig(NamedTuple):
    """What a supervisor has to do; the file ``supervisor.json``.

    Attributes:
        digest: Of everything that Envoy is started with: a proxy actor adopts only what it would start itself.
        command: Envoy's command line.
        node_pid: Process id of Ray's node (its raylet).
        node_start: When that process started, in the kernel's ticks: with the id it names one process for ever.
        patience_s: Seconds without an actor after which nobody needs Envoy.
    """

    digest: str
    command: list[str]
    node_pid: int
    node_start: int
    patience_s: float


class EnvoyState(NamedTuple):
    """What an actor is told.

    Attributes:
        digest: As in the plan.
        envoy_pid: Envoy's process id, 0 while it does not run.
        starts: How often Envoy was started.
        exit_code: Of the Envoy before this one; negative for a signal, None for the first.
    """

    digest: str
    envoy_pid: int
    starts: int
    exit_code: int | None


class IdleDeadline:
    """Whether somebody still needs Envoy. Plain state; times are monotonic seconds.

    Args:
        patience_s: Seconds that it waits for an actor.
        now: The time.

    Example:
        >>> needed = IdleDeadline(30.0, now=0.0)
        >>> needed.until
        30.0
        >>> needed.connected()
        >>> needed.until is None
        True
        >>> needed.disconnected(now=5.0)
        >>> needed.until
        35.0
    """

    def __init__(self, patience_s: float, now: float) -> None:
        self._patience_s = patience_s
        self._actors = 0
        self.until: float | None = now + patience_s

    def connected(self) -> None:
        """An actor came."""
        self._actors += 1
        self.until = None

    def disconnected(self, now: float) -> None:
        """An actor left, or died."""
        self._actors -= 1
        if self._actors == 0:
            self.until = now + self._patience_s


class RestartBackoff:
    """When Envoy is started again after it has died: at once, and ever more slowly while it dies at once.

    Example:
        >>> restarts = RestartBackoff()
        >>> [restarts.delay(lived_s=0.1) for _ in range(5)]
        [0.0, 0.1, 0.2, 0.4, 0.8]
        >>> restarts.delay(lived_s=0.1)
        1.0
        >>> restarts.delay(lived_s=60.0)
        0.0
    """

    _LONG_ENOUGH_S, _FIRST_S, _LONGEST_S = 5.0, 0.1, 1.0

    def __init__(self) -> None:
        self._delay = 0.0

    def delay(self, lived_s: float) -> float:
        """Return the seconds to wait after an Envoy that has lived so long."""
        if lived_s >= self._LONG_ENOUGH_S:
            self._delay = 0.0
        delay, self._delay = self._delay, min(max(self._delay * 2, self._FIRST_S), self._LONGEST_S)
        return delay


def process_start_time(pid: int) -> int | None:
    """Return when a process started, in the kernel's ticks; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in (b"Z", b"X") else int(after_name[19])


class Supervisor:
    """Runs one Envoy in one thread; the kernel ends Envoy when that thread ends.

    Args:
        folder: The folder of the proxy.
        plan: What to do.
        control: The control socket.

    Raises:
        ProcessLookupError: Ray's node has ended already.
    """

    def __init__(self, folder: str, plan: SupervisorConfig, control: socket.socket) -> None:
        self._folder, self._config, self._control = folder, plan, control
        self._node = os.pidfd_open(plan.node_pid)
        if process_start_time(plan.node_pid) != plan.node_start:
            raise ProcessLookupError(_NODE_ENDED)
        self._prctl = ctypes.CDLL(None).prctl
        self._selector = selectors.DefaultSelector()
        self._actors: set[socket.socket] = set()
        self._idle_deadline = IdleDeadline(plan.patience_s, time.monotonic())
        self._backoff = RestartBackoff()
        self._envoy_pid, self._envoy_fd, self._starts, self._began = 0, -1, 0, 0.0
        self._exit_code: int | None = None
        self._start_at: float | None = 0.0
        self._reason = ""

    def run(self) -> None:
        """Supervise until there is a reason to end, and leave nothing behind."""
        self._copy_oom_score()
        self._install_sigterm_handler()
        self._selector.register(self._node, selectors.EVENT_READ, lambda: self._end(_NODE_ENDED))
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)
        while not self._reason:
            now = time.monotonic()
            if self._start_at is not None and now >= self._start_at:
                self._start_envoy()
            for key, _ in self._selector.select(self._patience(now)):
                key.data()
            if self._idle_deadline.until is not None and time.monotonic() >= self._idle_deadline.until:
                self._end(f"no proxy actor has come for {self._config.patience_s:g} s")
        # The node's end is everybody's: there is no one left to wait for.
        self._stop_envoy(0.0 if self._reason == _NODE_ENDED else _STOP_PATIENCE_S)
        if self._reason != _SIGTERM or not self._actors:  # an actor that did not ask for the end needs its sockets
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- inside -------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason

    def _install_sigterm_handler(self) -> None:
        # Python goes back to waiting after a signal's handler, unless there is something to read.
        wake, waker = socket.socketpair()
        for end in wake, waker:
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGTERM, lambda *_: self._end(_SIGTERM))
        self._selector.register(wake, selectors.EVENT_READ, lambda: (wake.recv(16), waker))

    def _patience(self, now: float) -> float | None:
        ends = [end for end in (self._start_at, self._idle_deadline.until) if end is not None]
        return max(0.0, min(ends) - now) if ends else None

    def _copy_oom_score(self) -> None:
        # Ray gives its workers away first when memory runs out, and Envoy is not one.
        with contextlib.suppress(OSError), open(f"/proc/{self._config.node_pid}/oom_score_adj", "rb") as node:
            score = node.read()
            with open("/proc/self/oom_score_adj", "wb") as own:
                own.write(score)

    def _start_envoy(self) -> None:
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_envoy(supervisor)
        self._envoy_pid, self._envoy_fd = pid, os.pidfd_open(pid)
        self._starts += 1
        self._start_at, self._began = None, time.monotonic()
        self._selector.register(self._envoy_fd, selectors.EVENT_READ, self._reap)
        self._broadcast_state()

    def _become_envoy(self, supervisor: int) -> NoReturn:
        try:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a new program inherits that
            if os.getppid() == supervisor:
                os.execv(self._config.command[0], self._config.command)
        finally:
            os._exit(127)

    def _reap(self) -> None:
        self._selector.unregister(self._envoy_fd)
        os.close(self._envoy_fd)
        _, status = os.waitpid(self._envoy_pid, 0)
        self._exit_code = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        self._start_at = now + self._backoff.delay(now - self._began)
        self._envoy_pid = 0
        self._broadcast_state()

    def _stop_envoy(self, patience_s: float) -> None:
        if not self._envoy_pid:
            return
        ended = selectors.DefaultSelector()
        ended.register(self._envoy_fd, selectors.EVENT_READ)
        if patience_s:
            signal.pidfd_send_signal(self._envoy_fd, signal.SIGTERM)
        if not ended.select(patience_s):
            signal.pidfd_send_signal(self._envoy_fd, signal.SIGKILL)
        os.waitpid(self._envoy_pid, 0)

    # -- actors

    def _accept(self) -> None:
        try:
            actor, _ = self._control.accept()
        except OSError:  # it is gone already
            return
        actor.setblocking(False)
        self._actors.add(actor)
        self._idle_deadline.connected()
        self._selector.register(actor, selectors.EVENT_READ, lambda: self._read_command(actor))
        self._send_state(actor)

    def _read_command(self, actor: socket.socket) -> None:
        try:
            said = actor.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._disconnect(actor)
        elif b"stop" in said.split():
            self._end("a proxy actor stops")

    def _disconnect(self, actor: socket.socket) -> None:
        if actor in self._actors:
            self._actors.remove(actor)
            self._selector.unregister(actor)
            actor.close()
            self._idle_deadline.disconnected(time.monotonic())

    def _send_state(self, actor: socket.socket) -> None:
        report = EnvoyState(self._config.digest, self._envoy_pid, self._starts, self._exit_code)
        try:
            actor.sendall(json.dumps(report).encode() + b"\n")
        except OSError:  # dead, or it does not listen: it will ask anew
            self._disconnect(actor)

    def _broadcast_state(self) -> None:
        for actor in list(self._actors):
            self._send_state(actor)


def _read_config(folder: str) -> SupervisorConfig:
    with open(os.path.join(folder, CONFIG), encoding="utf-8") as file:
        return SupervisorConfig(**json.load(file))


def _detach(folder: str) -> int:
    """Go on as a process that is nobody's child.

    Returns:
        A pipe; the first process waits for a byte there, and ends well when it comes.
    """
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    os.chdir("/")
    # Held as long as this process lives: systemd-tmpfiles(8) removes no old files of a locked folder.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    log = os.open(os.path.join(folder, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return tell


def main(arguments: list[str]) -> Any:
    """Run the supervisor of a folder; the arguments are its path."""
    (folder,) = arguments
    plan = _read_config(folder)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.setblocking(False)
    control.bind(os.path.join(folder, CONTROL))
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    tell = _detach(folder)
    try:
        supervisor = Supervisor(folder, plan, control)
        # Not in the first process: whoever connects is told the process id of the one that listens.
        control.listen(16)
        os.write(tell, b".")
        os.close(tell)
        supervisor.run()
    except ProcessLookupError as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
