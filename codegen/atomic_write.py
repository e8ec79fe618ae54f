"""Replaces many files of a folder atomically: all of them, or none.

No file system renames several files at once. So the new files are first written to a staging folder inside it, and a
journal records the change. A copy of every old file is kept until the last new one is in place. An error rolls the
change back at once. If the process is killed, the journal remains, and the next process that locks the folder rolls the
change back. Until then some files are new and some are old; each of them is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".sdk-codegen-"
_JOURNAL = "journal.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that use this module, and roll back the change of one that was killed.

    Creates the folder if it does not exist. The lock ends with the process, even if that is killed.
    """
    made = _make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: a staging folder may belong to a process that still runs
            leftovers = []
        else:
            leftovers = sorted(folder.glob(f"{_PREFIX}*/"))
        for staging in leftovers:
            _roll_back(staging, folder)
        yield
    finally:
        os.close(handle)
        for parent in reversed(made):  # removes only those that are still empty
            with suppress(OSError):
                parent.rmdir()


def replace_files(
    folder: Path, write: Mapping[str, bytes], remove: Collection[str], on_written: Callable[[], None]
) -> None:
    """Write and remove files of a folder that the caller has locked.

    Folders that become empty are removed.

    Args:
        folder: The folder.
        write: New content by path below the folder. The last one is put in place last.
        remove: Paths to remove.
        on_written: Called after each new file was written to the staging folder, before any is put in place.

    Raises:
        OSError: A file can't be written or removed. The folder is unchanged.
    """
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    try:
        new, old = staging / "new", staging / "old"
        _make_parents(new, write)
        for path, content in write.items():
            (new / path).write_bytes(content)
            on_written()
        existing = {path for path in (*write, *remove) if os.path.exists(f"{folder}/{path}")}
        _make_parents(old, existing)
        for path in existing:
            _back_up(f"{folder}/{path}", f"{old}/{path}")
        journal = {"old": sorted(existing), "made": [path for path in write if path not in existing]}
        (staging / _JOURNAL).write_text(json.dumps(journal), encoding="utf-8")
        _make_parents(folder, write)
        for path in write:
            os.replace(f"{new}/{path}", f"{folder}/{path}")
        for path in existing.intersection(remove):
            (folder / path).unlink()
        # This commits the change: without a journal, nothing is rolled back.
        (staging / _JOURNAL).unlink()
    except BaseException:
        _roll_back(staging, folder)
        raise
    shutil.rmtree(staging)
    _prune(folder, remove)


def _make_parents(folder: Path, paths: Iterable[str]) -> None:
    for parent in {os.path.dirname(path) for path in paths}:
        os.makedirs(f"{folder}/{parent}", exist_ok=True)


def _back_up(file: str, copy: str) -> None:
    try:
        os.link(file, copy)
    except OSError:  # a file system without links
        shutil.copy2(file, copy)


def _roll_back(staging: Path, folder: Path) -> None:
    """Restore a folder to its state before the change that used ``staging``, and remove that."""
    try:
        journal = json.loads((staging / _JOURNAL).read_bytes())
    except (FileNotFoundError, ValueError):  # either no file was put in place yet, or all were
        journal = {"old": [], "made": []}
    for path in journal["made"]:
        if not (staging / "new" / path).exists():
            (folder / path).unlink(missing_ok=True)
    for path in journal["old"]:
        with suppress(FileNotFoundError):  # another process was killed while it rolled this change back
            os.replace(staging / "old" / path, folder / path)
    _prune(folder, journal["made"])
    (staging / _JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(staging)


def _make_folder(folder: Path) -> list[Path]:
    made = [parent for parent in (*reversed(folder.parents), folder) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _prune(folder: Path, paths: Collection[str]) -> None:
    """Remove the folders of removed files if they are empty now."""
    for path in paths:
        with suppress(OSError):  # not empty, and neither are those above it
            for parent in Path(path).parents[:-1]:
                (folder / parent).rmdir()
