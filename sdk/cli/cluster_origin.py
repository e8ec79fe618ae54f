"""Origin of the Ray cluster that a command has found, and consent to change one that somebody else has started."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

import click

from codegen.console import count
from sdk._serve.ray_processes import processes_of
from sdk.cli.rpc.requests import is_terminal_input
from sdk.errors import ClusterError


@dataclass(frozen=True, slots=True)
class ClusterOrigin:
    """User and folder that started a cluster.

    Attributes:
        address: Address of its GCS.
        nodes: Number of nodes that are alive.
        user: Name of the user who started it on this machine; empty if that is not known.
        folder: The working directory where it was started; empty if that is not known.
        is_named: Whether the user of the command has named its address.
        is_own: Whether this user started it with ``ray start``, or in this folder.
    """

    address: str
    nodes: int
    user: str = ""
    folder: str = ""
    is_named: bool = False
    is_own: bool = False

    def __str__(self) -> str:
        starter = f"started by {self.user}" if self.user else "started elsewhere"
        place = f" in {self.folder}" if self.folder else ""
        return f"Ray at {self.address}, {starter}{place}, {count(self.nodes, 'node')}"


def origin_of(address: str, nodes: int, *, is_named: bool, is_newest: bool) -> ClusterOrigin:
    """Return who started a cluster.

    Args:
        address: Address of its GCS.
        nodes: Number of nodes that are alive.
        is_named: Whether the user of the command has named the address.
        is_newest: Whether it is the one that ``ray start`` has started last on this machine.
    """
    for process in processes_of(address):
        with contextlib.suppress(OSError):  # it has ended
            return _of_process(process, address, nodes, is_named=is_named, is_newest=is_newest)
    return ClusterOrigin(address, nodes, is_named=is_named)


def _of_process(process: Path, address: str, nodes: int, *, is_named: bool, is_newest: bool) -> ClusterOrigin:
    owner, folder = process.stat().st_uid, ""
    with contextlib.suppress(PermissionError):  # only its owner may read it
        folder = os.readlink(process / "cwd")
    user = str(owner)
    with contextlib.suppress(KeyError):  # a container may know no names
        user = pwd.getpwuid(owner).pw_name
    is_own = owner == os.getuid() and (is_newest or folder == os.getcwd())
    return ClusterOrigin(address, nodes, user, folder, is_named, is_own)


def require_consent(origin: ClusterOrigin, action: str, *, is_given: bool, remedy: str) -> None:
    """Show the cluster that a command is about to change, and ask if somebody else has started it.

    Args:
        origin: The cluster.
        action: What the command will do there, for the question: ``"Shut down everything"``.
        is_given: Whether the command line has ``--yes``.
        remedy: What else the user can do.

    Raises:
        ClusterError: There is no terminal to ask in, or the user refuses.
    """
    click.echo(str(origin), err=True)
    if origin.is_named or origin.is_own or is_given:
        return
    if not is_terminal_input():
        raise ClusterError(
            f"This command did not start that cluster: name it with --address {origin.address}, or give --yes{remedy}."
        )
    if not click.confirm(f"{action} there?", err=True):
        raise ClusterError("Nothing was changed.")
