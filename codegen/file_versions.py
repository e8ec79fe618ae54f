"""Versions of files that are watched: what changes when a file does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

# The inode, the time of the last change in nanoseconds, and the size in bytes of each file that exists.
FileVersions = Mapping[Path, tuple[int, int, int]]

# Some file systems, such as those of other machines, send no events, and a removed folder sends no more of them: look
# again this often, in milliseconds.
POLL_MS = 1000


def file_versions(files: Iterable[Path]) -> FileVersions:
    """Return the version of each file. A file that is removed between two calls is missing in the second result."""
    versions = {}
    for file in files:
        with suppress(OSError):  # it does not exist
            status = file.stat()
            versions[file] = status.st_ino, status.st_mtime_ns, status.st_size
    return versions


def changed_files(before: FileVersions, after: FileVersions) -> list[Path]:
    """Return the files that were changed, added or removed, sorted.

    Example:
        >>> a, b, c = Path("a.py"), Path("b.py"), Path("c.py")
        >>> [str(file) for file in changed_files({a: (1, 1, 1), b: (2, 1, 1)}, {a: (1, 2, 1), c: (3, 1, 1)})]
        ['a.py', 'b.py', 'c.py']
    """
    return sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file))
