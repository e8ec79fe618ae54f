"""The process between a proxy actor and its Envoy, so that Envoy outlives the actor but not Ray's node.

It runs as a script in a Python without site-packages, so it imports only the standard library and uses little memory.
It is a daemon in a separate session, so signals and kills that end the actor do not reach it. It restarts Envoy when
Envoy dies. It stops Envoy and removes the folder when Ray's node ends, when an actor sends ``stop``, and when no actor
has been connected for a while.

An actor connects to ``control.sock`` in the folder and gets a line of JSON, an :class:`EnvoyState`, at once and after
each change. The line ``stop`` stops Envoy and the supervisor.
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
import struct
import sys
import time
from typing import Any, NamedTuple, NoReturn

CONFIG_FILE, CONTROL_SOCKET, LOG_FILE = "supervisor.json", "control.sock", "supervisor.log"
_PR_SET_PDEATHSIG = 1
# Value of SO_PEERCRED (unix(7)): pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")
# Seconds between SIGTERM and SIGKILL.
_STOP_TIMEOUT_S = 3.0
_NODE_ENDED, _SIGTERM = "Ray's node has ended", "SIGTERM"


class SupervisorConfig(NamedTuple):
    """Configuration of a supervisor, stored in ``supervisor.json``.

    Attributes:
        digest: Digest of everything that Envoy is started with. A proxy actor adopts an Envoy only if it would start
            the same one.
        command: Envoy's command line.
        node_pid: Process id of Ray's node (its raylet).
        node_start: Start time of that process in clock ticks since boot. Together with the id it is unique, although
            the kernel reuses ids.
        idle_timeout_s: Seconds without a connected actor after which Envoy is stopped.
    """

    digest: str
    command: list[str]
    node_pid: int
    node_start: int
    idle_timeout_s: float


class EnvoyState(NamedTuple):
    """State of Envoy, sent to actors.

    Attributes:
        digest: Digest of the configuration.
        envoy_pid: Envoy's process id; 0 while it is not running.
        starts: Number of times that Envoy was started.
        exit_code: Exit code of the previous Envoy, negative for a signal; None before the first exit.
    """

    digest: str
    envoy_pid: int
    starts: int
    exit_code: int | None


class IdleDeadline:
    """Time at which Envoy is stopped unless an actor connects. Plain state; times are monotonic seconds.

    Args:
        idle_timeout_s: Seconds to wait for an actor.
        now: The current time.

    Example:
        >>> deadline = IdleDeadline(30.0, now=0.0)
        >>> deadline.at
        30.0
        >>> deadline.connected()
        >>> print(deadline.at)
        None
        >>> deadline.disconnected(now=5.0)
        >>> deadline.at
        35.0
    """

    def __init__(self, idle_timeout_s: float, now: float) -> None:
        self._timeout_s = idle_timeout_s
        self._actors = 0
        self.at: float | None = now + idle_timeout_s

    def connected(self) -> None:
        """Record that an actor connected."""
        self._actors += 1
        self.at = None

    def disconnected(self, now: float) -> None:
        """Record that an actor disconnected or died."""
        self._actors -= 1
        if self._actors == 0:
            self.at = now + self._timeout_s


class RestartBackoff:
    """Backoff between restarts of Envoy: none after a long run, up to 1 s while it dies at once.

    Example:
        >>> backoff = RestartBackoff()
        >>> [backoff.delay(lived_s=0.1) for _ in range(5)]
        [0.0, 0.1, 0.2, 0.4, 0.8]
        >>> backoff.delay(lived_s=0.1)
        1.0
        >>> backoff.delay(lived_s=60.0)
        0.0
    """

    _RESET_AFTER_S, _FIRST_S, _MAX_S = 5.0, 0.1, 1.0

    def __init__(self) -> None:
        self._delay = 0.0

    def delay(self, lived_s: float) -> float:
        """Return the seconds to wait before the restart of an Envoy that has run for ``lived_s`` seconds."""
        if lived_s >= self._RESET_AFTER_S:
            self._delay = 0.0
        delay, self._delay = self._delay, min(max(self._delay * 2, self._FIRST_S), self._MAX_S)
        return delay


def process_start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if it does not exist or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in (b"Z", b"X") else int(after_name[19])


class Supervisor:
    """Runs one Envoy from one thread; the kernel kills Envoy when that thread ends (``PR_SET_PDEATHSIG``).

    Args:
        folder: The folder of the proxy.
        config: The configuration.
        control: The control socket.

    Raises:
        ProcessLookupError: Ray's node has ended already.
    """

    def __init__(self, folder: str, config: SupervisorConfig, control: socket.socket) -> None:
        self._folder, self._config, self._control = folder, config, control
        self._node = os.pidfd_open(config.node_pid)
        if process_start_time(config.node_pid) != config.node_start:
            raise ProcessLookupError(_NODE_ENDED)
        self._prctl = ctypes.CDLL(None).prctl
        self._selector = selectors.DefaultSelector()
        self._actors: set[socket.socket] = set()
        self._idle_deadline = IdleDeadline(config.idle_timeout_s, time.monotonic())
        self._backoff = RestartBackoff()
        self._envoy_pid, self._envoy_fd, self._starts, self._started_at = 0, -1, 0, 0.0
        self._exit_code: int | None = None
        self._start_at: float | None = 0.0
        self._reason = ""

    def run(self) -> None:
        """Supervise Envoy until there is a reason to end, then stop Envoy and clean up."""
        self._copy_oom_score()
        self._install_sigterm_handler()
        self._selector.register(self._node, selectors.EVENT_READ, lambda: self._end(_NODE_ENDED))
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)
        while not self._reason:
            now = time.monotonic()
            if self._start_at is not None and now >= self._start_at:
                self._start_envoy()
            for key, _ in self._selector.select(self._select_timeout(now)):
                key.data()
            if self._idle_deadline.at is not None and time.monotonic() >= self._idle_deadline.at:
                self._end(f"no proxy actor has come for {self._config.idle_timeout_s:g} s")
        # When Ray's node has ended, its replicas have too, and no call can finish: kill Envoy at once.
        self._stop_envoy(0.0 if self._reason == _NODE_ENDED else _STOP_TIMEOUT_S)
        if self._reason != _SIGTERM or not self._actors:  # an actor that did not send stop still needs its sockets
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- inside -------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason

    def _install_sigterm_handler(self) -> None:
        # After a signal handler Python resumes select() (PEP 475), unless a descriptor is readable.
        wake, waker = socket.socketpair()
        for end in wake, waker:
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGTERM, lambda *_: self._end(_SIGTERM))
        self._selector.register(wake, selectors.EVENT_READ, lambda: (wake.recv(16), waker))

    def _select_timeout(self, now: float) -> float | None:
        ends = [end for end in (self._start_at, self._idle_deadline.at) if end is not None]
        return max(0.0, min(ends) - now) if ends else None

    def _copy_oom_score(self) -> None:
        # Ray raises the OOM score of its workers, so that the kernel kills them first. Envoy is not a worker: give it
        # the score of the node.
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
        self._start_at, self._started_at = None, time.monotonic()
        self._selector.register(self._envoy_fd, selectors.EVENT_READ, self._reap)
        self._broadcast_state()

    def _become_envoy(self, supervisor: int) -> NoReturn:
        try:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and exec keeps that
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
        self._start_at = now + self._backoff.delay(now - self._started_at)
        self._envoy_pid = 0
        self._broadcast_state()

    def _stop_envoy(self, timeout_s: float) -> None:
        if not self._envoy_pid:
            return
        ended = selectors.DefaultSelector()
        ended.register(self._envoy_fd, selectors.EVENT_READ)
        if timeout_s:
            signal.pidfd_send_signal(self._envoy_fd, signal.SIGTERM)
        if not ended.select(timeout_s):
            signal.pidfd_send_signal(self._envoy_fd, signal.SIGKILL)
        os.waitpid(self._envoy_pid, 0)

    # -- actors

    def _accept(self) -> None:
        try:
            actor, _ = self._control.accept()
        except OSError:  # the actor is gone already
            return
        _, user, _ = _CREDENTIALS.unpack(actor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user != os.geteuid():
            print(f"refused a connection of another user, with user id {user}", file=sys.stderr)
            actor.close()
            return
        actor.setblocking(False)
        self._actors.add(actor)
        self._idle_deadline.connected()
        self._selector.register(actor, selectors.EVENT_READ, lambda: self._read_command(actor))
        self._send_state(actor)

    def _read_command(self, actor: socket.socket) -> None:
        try:
            command = actor.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            command = b""
        if not command:
            self._disconnect(actor)
        elif b"stop" in command.split():
            self._end("a proxy actor stops")

    def _disconnect(self, actor: socket.socket) -> None:
        if actor in self._actors:
            self._actors.remove(actor)
            self._selector.unregister(actor)
            actor.close()
            self._idle_deadline.disconnected(time.monotonic())

    def _send_state(self, actor: socket.socket) -> None:
        state = EnvoyState(self._config.digest, self._envoy_pid, self._starts, self._exit_code)
        try:
            actor.sendall(json.dumps(state).encode() + b"\n")
        except OSError:  # the actor is dead or does not read; it will connect again
            self._disconnect(actor)

    def _broadcast_state(self) -> None:
        for actor in list(self._actors):
            self._send_state(actor)


def _read_config(folder: str) -> SupervisorConfig:
    with open(os.path.join(folder, CONFIG_FILE), encoding="utf-8") as file:
        return SupervisorConfig(**json.load(file))


def _detach(folder: str) -> int:
    """Daemonize: fork, end the parent when the child is ready, and start a new session in the child.

    Returns:
        The write end of a pipe. The parent exits with 0 when it reads a byte from the pipe, and with 1 at its end.
    """
    ready, notify = os.pipe()
    if os.fork():
        os.close(notify)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    os.setsid()
    os.chdir("/")
    # Locked as long as this process runs: systemd-tmpfiles(8) removes no old files from a locked folder.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    log = os.open(os.path.join(folder, LOG_FILE), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return notify


def main(arguments: list[str]) -> Any:
    """Run the supervisor of a folder.

    Args:
        arguments: The path of the folder, alone.
    """
    (folder,) = arguments
    config = _read_config(folder)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.setblocking(False)
    control.bind(os.path.join(folder, CONTROL_SOCKET))
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    notify = _detach(folder)
    try:
        supervisor = Supervisor(folder, config, control)
        # Not before the fork: SO_PEERCRED gives an actor the process id of the process that called listen.
        control.listen(16)
        os.write(notify, b".")
        os.close(notify)
        supervisor.run()
    except ProcessLookupError as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
