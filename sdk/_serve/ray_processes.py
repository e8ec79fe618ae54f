"""The visible processes of the Ray clusters on this machine, also of those that other users started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def processes_of(address: str) -> Iterator[Path]:
    """Yield the folders in ``/proc`` of the processes of a cluster that are visible to this user.

    Args:
        address: Address of the cluster's GCS.
    """
    # Ray's processes on each node have this argument.
    argument = f"--gcs-address={address}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            if argument in (process / "cmdline").read_bytes():
                yield process
