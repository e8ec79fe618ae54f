"""An Envoy that outlives the proxy actor: started under a supervisor, and adopted by the next actor.

The folder of a proxy holds what the next actor needs: the supervisor's control socket, and the routing table that
Envoy acknowledged last, so that an actor that begins together with a controller still knows what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import pickle
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdk._ingress.envoy import supervisor
from sdk._ingress.envoy.supervisor import CONTROL, LOG, PLAN, Plan, Report, start_of
from sdk.errors import IngressError

if TYPE_CHECKING:
    from sdk._xds.snapshot import Snapshot

logger = logging.getLogger("sdk.ingress")

#: Seconds without a proxy actor after which its Envoy ends. Ray starts an actor again within a few.
ACTOR_PATIENCE_S = 30.0
_START_PATIENCE_S = 10.0
_STOP_PATIENCE_S = 8.0
_TABLE = "table.pickle"
# What SO_PEERCRED gives: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")


class Table(NamedTuple):
    """The routing table of a proxy.

    Attributes:
        in_force: As Envoy has it: without what it refused.
        published: As the controller wants it.
    """

    in_force: Snapshot
    published: Snapshot


class SupervisedEnvoy:
    """A supervisor with its Envoy, seen from the proxy actor; :func:`find` or :func:`start` make one.

    Args:
        reader: Of the connection to the supervisor.
        writer: Of the same.
        report: What the supervisor said first.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, report: Report) -> None:
        self._reader, self._writer = reader, writer
        peer = writer.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._pid: int
        self._uid: int
        self._pid, self._uid, _ = _CREDENTIALS.unpack(credentials)
        self.report = report

    @property
    def is_ours(self) -> bool:
        """Whether this user runs it."""
        return self._uid == os.geteuid()

    async def reports(self) -> AsyncIterator[Report]:
        """Yield what is reported after each change; ends when the supervisor has, and Envoy with it."""
        while (report := await _read(self._reader)) is not None:
            self.report = report
            yield report

    def leave(self) -> None:
        """Hang up; Envoy goes on."""
        self._writer.close()

    async def stop(self) -> None:
        """End Envoy and its supervisor, which removes the folder."""
        self._writer.write(b"stop\n")
        try:
            # Its end closes the connection. Others may be reading, so that this does not.
            pid = os.pidfd_open(self._pid)
        except ProcessLookupError:
            self._writer.close()
            return
        try:
            if not await _readable(pid, _STOP_PATIENCE_S):
                signal.pidfd_send_signal(pid, signal.SIGKILL)  # the kernel ends Envoy with it
                await _readable(pid, _STOP_PATIENCE_S)
        finally:
            os.close(pid)
            self._writer.close()


async def find(folder: Path) -> SupervisedEnvoy | None:
    """Return the Envoy that an earlier proxy actor of this folder has left; None when there is none.

    Args:
        folder: The folder of the proxy; one of another user is refused.

    Raises:
        IngressError: The folder belongs to somebody else.
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


async def adopt(folder: Path, plan: Plan) -> SupervisedEnvoy | None:
    """Return the Envoy that an earlier proxy actor of this folder has left, if it is the one that would be started now.

    One that was started otherwise is ended, and its folder removed.

    Args:
        folder: The folder of the proxy; one of another user is refused.
        plan: What would be started now.

    Raises:
        IngressError: The folder belongs to somebody else.
    """
    found = await find(folder)
    if found is None or (found.is_ours and found.report.digest == plan.digest):
        return found
    logger.warning("the Envoy that runs on this node was started with other options: it is replaced")
    await found.stop()
    return None


async def start(folder: Path, plan: Plan) -> SupervisedEnvoy:
    """Start a supervisor with Envoy.

    Args:
        folder: The folder of the proxy; only this user can enter it.
        plan: What to start.

    Raises:
        OSError: It could not be started; the text says why.
    """
    (folder / PLAN).write_text(json.dumps(plan._asdict()))
    (folder / CONTROL).unlink(missing_ok=True)
    if await asyncio.to_thread(_spawn, folder):
        return await _connect(folder)
    words = (folder / LOG).read_text(errors="replace").splitlines()[-1:]
    raise ChildProcessError(f"Envoy's supervisor did not start. {' '.join(words)}".rstrip())


def _spawn(folder: Path) -> bool:
    """Start the supervisor, and return whether it listens. A process of its own: to fork here is not safe."""
    with open(folder / LOG, "ab") as log:
        # No site-packages and nothing from the environment: a small process.
        first = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return first.wait(_START_PATIENCE_S) == 0
    except subprocess.TimeoutExpired:
        first.kill()
        first.wait()
        return False


def make_plan(command: list[str], *inputs: object) -> Plan:
    """Return the plan for an Envoy.

    Args:
        command: Envoy's command line.
        inputs: Everything else that makes one Envoy another than the next: its bootstrap, options.
    """
    digest = hashlib.sha256(Path(supervisor.__file__).read_bytes())
    binary = os.stat(command[0])
    for part in (command, binary.st_size, binary.st_mtime_ns, *inputs):
        digest.update(repr(part).encode() + b"\0")
    node_pid, node_start = _node_process()
    return Plan(digest.hexdigest(), command, node_pid, node_start, ACTOR_PATIENCE_S)


def keep_table(folder: Path, table: Table) -> None:
    """Write down what Envoy has acknowledged, for the next actor."""
    new = folder / f"{_TABLE}.new"
    new.write_bytes(pickle.dumps(table))
    new.replace(folder / _TABLE)


def kept_table(folder: Path) -> Table | None:
    """Return what Envoy acknowledged last; None before the first time.

    The folder is private, and what an adopted Envoy's digest stands for has written it.
    """
    with contextlib.suppress(FileNotFoundError):
        table: Table = pickle.loads((folder / _TABLE).read_bytes())
        return table
    return None


def _node_process() -> tuple[int, int]:
    """Return the process id of Ray's node, and when it started.

    Raises:
        IngressError: It has ended.
    """
    pid = int(os.environ.get("RAY_RAYLET_PID", os.getppid()))
    began = start_of(pid)
    if began is None:
        raise IngressError("Ray's node has ended")
    return pid, began


async def _connect(folder: Path) -> SupervisedEnvoy:
    reader, writer = await asyncio.open_unix_connection(str(folder / CONTROL))
    try:
        report = await asyncio.wait_for(_read(reader), _START_PATIENCE_S)
        if report is None:
            raise ConnectionResetError("the supervisor hung up")
    except BaseException:
        writer.close()
        raise
    return SupervisedEnvoy(reader, writer, report)


async def _read(reader: asyncio.StreamReader) -> Report | None:
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    return Report(*json.loads(line)) if line.endswith(b"\n") else None


async def _readable(fd: int, patience_s: float) -> bool:
    """Wait until a file descriptor can be read: for a pidfd, until the process has ended."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(fd, done.set)
    try:
        await asyncio.wait_for(done.wait(), patience_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True
