"""The folder of a test server, for its sockets and files; those of processes that were killed are removed."""

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
def own_folder() -> Iterator[Path]:
    """Make a folder that is there as long as this context, and at most until the next one after a crash."""
    _sweep()
    # The path of a unix socket has at most 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        # Locked before it has its name: nobody finds it free in between.
        with (folder / "new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "new").rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders whose processes are gone: the kernel lets go of their locks."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:  # somebody else's, or just removed
            if os.fstat(file.fileno()).st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
