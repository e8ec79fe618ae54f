"""Temporary folder of a test server, for its sockets and files. Folders of killed processes are removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "sdk-testing-"
_LOCK = "lock"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder and remove it at the end of the context; after a crash, the next call removes it."""
    _remove_stale()
    # The path of a unix socket has at most 107 bytes (man 7 unix): pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        # Locked before it gets its name, so that no other process finds it unlocked.
        with (folder / "new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "new").rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale() -> None:
    """Remove the folders of dead processes, whose locks the kernel has released."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:  # another user's, locked, or just removed
            if os.fstat(file.fileno()).st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
