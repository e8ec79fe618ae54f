"""The processes of a Ray node, found without asking Ray: what the tests kill, and what must be gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from tests.support.deadlines import happens
from tests.support.loops import PATIENCE_S


def ingress_folder(node_id: str) -> Path:
    """The folder of a node's proxy."""
    return Path(tempfile.gettempdir(), f"sdk-ingress-{node_id[:12]}")


def raylet_pid(node_id: str) -> int:
    """The process id of a node that has a proxy."""
    plan = json.loads((ingress_folder(node_id) / "supervisor.json").read_text())
    return int(plan["node_pid"])


def workers(raylet: int, title: str) -> list[int]:
    """The workers of a node with this title: ``"ray::Proxy"``; with a colon at the end: whose title begins so."""
    found = {pid: _command(pid) for pid in _pids() if _parent(pid) == raylet}
    # Ray adds the method that runs: "ray::Proxy.stop".
    return [
        pid
        for pid, command in found.items()
        if command == title or command.startswith((f"{title}.", f"{title} ") if title[-1] != ":" else title)
    ]


def commands(part: str) -> dict[int, str]:
    """The processes that have this in their command line."""
    found = {pid: _command(pid) for pid in _pids() if pid != os.getpid()}
    return {pid: command for pid, command in found.items() if part in command}


def processes_with(mark: str) -> list[str]:
    """Return the command lines of all processes that inherited this mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


def left_with(mark: str, seconds: float = PATIENCE_S) -> list[str]:
    """Wait until the processes with this mark have ended, and return those that have not in time."""
    happens(lambda: not processes_with(mark), seconds)
    return processes_with(mark)


def thread_names(pid: int) -> set[str]:
    """Return the names of the threads of a process."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended since the folder was listed
            found.add((thread / "comm").read_text().strip())
    return found


def is_alive(pid: int) -> bool:
    """Return True if a process runs; a zombie does not."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def _stat(pid: int) -> list[str]:
    """The fields after the process's name: its state, its parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""
