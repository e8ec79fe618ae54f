"""Changes many files of a folder: all of them, or none.

No file system renames several files at once. So the new files are written beside the folder's own first, a journal says
what is about to happen, and every old file is kept until the last new one is in place. An error on the way is undone at
once. Should the process be killed in between, the journal is still there, and whoever changes the folder next undoes it
first. Until then some files are new and some are old; each of them is whole.
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
    """Keep every other process that uses this module away from a folder, and undo what one that was killed left.

    Makes the folder when it does not exist. The lock ends with the process, however that ends.
    """
    made = _make(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: what lies there could be another's that still runs
            leftovers = []
        else:
            leftovers = sorted(folder.glob(f"{_PREFIX}*/"))
        for left in leftovers:
            _undo(left, folder)
        yield
    finally:
        os.close(handle)
        # Only those that are still empty.
        for parent in reversed(made):
            with suppress(OSError):
                parent.rmdir()


def swap(folder: Path, write: Mapping[str, bytes], remove: Collection[str], wrote: Callable[[], None]) -> None:
    """Write and remove files of a folder that is locked.

    Folders that become empty are removed.

    Args:
        folder: The folder.
        write: New content by path below the folder. The last one is put in place last.
        remove: Paths to remove.
        wrote: Called after each new file was written, before any is put in place.

    Raises:
        OSError: The folder is as it was.
    """
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    try:
        new, old = staging / "new", staging / "old"
        _make_parents(new, write)
        for path, content in write.items():
            (new / path).write_bytes(content)
            wrote()
        existing = {path for path in (*write, *remove) if os.path.exists(f"{folder}/{path}")}
        _make_parents(old, existing)
        for path in existing:
            _keep(f"{folder}/{path}", f"{old}/{path}")
        journal = {"old": sorted(existing), "made": [path for path in write if path not in existing]}
        (staging / _JOURNAL).write_text(json.dumps(journal), encoding="utf-8")
        _make_parents(folder, write)
        for path in write:
            os.replace(f"{new}/{path}", f"{folder}/{path}")
        for path in existing.intersection(remove):
            (folder / path).unlink()
        # From here on, there is nothing to undo.
        (staging / _JOURNAL).unlink()
    except BaseException:
        _undo(staging, folder)
        raise
    shutil.rmtree(staging)
    _prune(folder, remove)


def _make_parents(folder: Path, paths: Iterable[str]) -> None:
    for parent in {os.path.dirname(path) for path in paths}:
        os.makedirs(f"{folder}/{parent}", exist_ok=True)


def _keep(file: str, copy: str) -> None:
    try:
        os.link(file, copy)
    except OSError:  # a file system without links
        shutil.copy2(file, copy)


def _undo(staging: Path, folder: Path) -> None:
    """Bring a folder to where it was before the swap that used ``staging``, which is then removed."""
    try:
        journal = json.loads((staging / _JOURNAL).read_bytes())
    except (FileNotFoundError, ValueError):  # nothing was put in place yet, or everything was
        journal = {"old": [], "made": []}
    for path in journal["made"]:
        if not (staging / "new" / path).exists():
            (folder / path).unlink(missing_ok=True)
    for path in journal["old"]:
        with suppress(FileNotFoundError):  # somebody was killed while undoing it
            os.replace(staging / "old" / path, folder / path)
    _prune(folder, journal["made"])
    (staging / _JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(staging)


def _make(folder: Path) -> list[Path]:
    made = [parent for parent in (*reversed(folder.parents), folder) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _prune(folder: Path, paths: Collection[str]) -> None:
    """Remove the folders of removed files that are empty now."""
    for path in paths:
        with suppress(OSError):  # not empty, and neither are those above it
            for parent in Path(path).parents[:-1]:
                (folder / parent).rmdir()
