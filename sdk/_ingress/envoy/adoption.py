"""Start Envoy under a supervisor, so that it outlives the proxy actor and the next actor can adopt it.

The folder of a proxy contains what the next actor needs: the supervisor's control socket, and the routing table that
Envoy acknowledged last. So an actor that starts together with a new controller still knows what Envoy serves.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sdk._guard.peer_user import peer_process
from sdk._ingress.envoy import supervisor
from sdk._ingress.envoy.supervisor import (
    CONFIG_FILE,
    CONTROL_SOCKET,
    LOG_FILE,
    EnvoyState,
    SupervisorConfig,
    process_start_time,
)
from sdk.errors import IngressError

logger = logging.getLogger("sdk.ingress")

#: Seconds without a proxy actor after which its Envoy is stopped. Ray restarts an actor within a few seconds.
ACTOR_TIMEOUT_S = 30.0
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 8.0


class SupervisedEnvoy:
    """Connection of the proxy actor to a supervisor and its Envoy.

    Created by :func:`find_running_envoy` and :func:`start_envoy`.

    Args:
        reader: Reader of the connection.
        writer: Writer of the connection.
        state: The first state that the supervisor sent.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: EnvoyState) -> None:
        self._reader, self._writer = reader, writer
        self._pid, self._uid = peer_process(writer.get_extra_info("socket"))
        self.state = state

    @property
    def is_own(self) -> bool:
        """True if the supervisor runs as this user."""
        return self._uid == os.geteuid()

    async def states(self) -> AsyncIterator[EnvoyState]:
        """Yield the state after each change, until the supervisor ends, and Envoy with it."""
        while (state := await _read(self._reader)) is not None:
            self.state = state
            yield state

    def disconnect(self) -> None:
        """Close the connection. Envoy keeps running."""
        self._writer.close()

    async def stop(self) -> None:
        """Stop Envoy and its supervisor, which removes the folder."""
        self._writer.write(b"stop\n")
        try:
            # Wait for the process, not for the end of the connection: states() may be reading from it.
            pid = os.pidfd_open(self._pid)
        except ProcessLookupError:
            self._writer.close()
            return
        try:
            if not await _readable(pid, _STOP_TIMEOUT_S):
                signal.pidfd_send_signal(pid, signal.SIGKILL)  # the kernel kills Envoy with it
                await _readable(pid, _STOP_TIMEOUT_S)
        finally:
            os.close(pid)
            self._writer.close()


async def find_running_envoy(folder: Path) -> SupervisedEnvoy | None:
    """Return the running Envoy of an earlier proxy actor of this folder; None if no Envoy is running.

    Args:
        folder: The folder of the proxy.

    Raises:
        IngressError: The folder belongs to another user, or others can enter it.
    """
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise IngressError(f"{folder} is not this user's private folder; remove it.")
    try:
        return await _connect(folder)
    except (TimeoutError, OSError):
        return None


async def adopt(folder: Path, config: SupervisorConfig) -> SupervisedEnvoy | None:
    """Return the running Envoy of an earlier proxy actor of this folder, if it has this configuration.

    An Envoy with another configuration is stopped, and its folder removed.

    Args:
        folder: The folder of the proxy.
        config: Configuration of the Envoy that would be started now.

    Raises:
        IngressError: The folder belongs to another user, or others can enter it.
    """
    found = await find_running_envoy(folder)
    if found is None or (found.is_own and found.state.digest == config.digest):
        return found
    logger.warning("the Envoy that is running on this node was started with other options; replacing it")
    await found.stop()
    return None


async def start_envoy(folder: Path, config: SupervisorConfig) -> SupervisedEnvoy:
    """Start a supervisor with Envoy.

    Args:
        folder: The folder of the proxy; only this user can enter it.
        config: The configuration.

    Raises:
        OSError: The supervisor could not be started. The message gives the reason.
    """
    (folder / CONFIG_FILE).write_text(json.dumps(config._asdict()))
    (folder / CONTROL_SOCKET).unlink(missing_ok=True)
    if await asyncio.to_thread(_spawn, folder):
        return await _connect(folder)
    last_line = (folder / LOG_FILE).read_text(errors="replace").splitlines()[-1:]
    raise ChildProcessError(f"Envoy's supervisor did not start. {' '.join(last_line)}".rstrip())


def _spawn(folder: Path) -> bool:
    """Start the supervisor, and return whether it listens.

    It runs in a new interpreter, because a fork of this multi-threaded process is not safe.
    """
    with open(folder / LOG_FILE, "ab") as log:
        # Without site-packages and environment variables the process stays small.
        first = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return first.wait(_START_TIMEOUT_S) == 0
    except subprocess.TimeoutExpired:
        first.kill()
        first.wait()
        return False


def make_config(command: list[str], *inputs: object) -> SupervisorConfig:
    """Return the configuration of a supervisor.

    Args:
        command: Envoy's command line.
        inputs: Everything else that must be equal for an Envoy to be adopted: its bootstrap, the fixed options.
    """
    digest = hashlib.sha256(Path(supervisor.__file__).read_bytes())
    binary = os.stat(command[0])
    for part in (command, binary.st_size, binary.st_mtime_ns, *inputs):
        digest.update(repr(part).encode() + b"\0")
    node_pid, node_start = _node_process()
    return SupervisorConfig(digest.hexdigest(), command, node_pid, node_start, ACTOR_TIMEOUT_S)


def _node_process() -> tuple[int, int]:
    """Return the process id and the start time of Ray's node.

    Raises:
        IngressError: The node has ended.
    """
    pid = int(os.environ.get("RAY_RAYLET_PID", os.getppid()))
    started_at = process_start_time(pid)
    if started_at is None:
        raise IngressError("Ray's node has ended")
    return pid, started_at


async def _connect(folder: Path) -> SupervisedEnvoy:
    reader, writer = await asyncio.open_unix_connection(str(folder / CONTROL_SOCKET))
    try:
        state = await asyncio.wait_for(_read(reader), _START_TIMEOUT_S)
        if state is None:
            raise ConnectionResetError("the supervisor hung up")
    except BaseException:
        writer.close()
        raise
    return SupervisedEnvoy(reader, writer, state)


async def _read(reader: asyncio.StreamReader) -> EnvoyState | None:
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    return EnvoyState(*json.loads(line)) if line.endswith(b"\n") else None


async def _readable(fd: int, timeout_s: float) -> bool:
    """Wait until a file descriptor is readable; for a pidfd, until the process has ended. Return False on timeout."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(fd, done.set)
    try:
        await asyncio.wait_for(done.wait(), timeout_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True
