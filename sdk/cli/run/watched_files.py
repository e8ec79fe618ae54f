"""The files that ``sdk run --reload`` looks at, and how it notices that they have changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# What tells one version of a file from another: its identity, time and size.
State = Mapping[Path, tuple[int, int, int]]

_SUFFIXES = (".py", ".proto")
# Folders that hold no code of the project. Hidden ones, and virtual environments by any name, are left alone as well.
_OTHERS = ("__pycache__", "node_modules", "site-packages")
_VENV = "pyvenv.cfg"
# Milliseconds without another change until a change counts, at the most, and how often is looked.
_DEBOUNCE_MS = 1600
_STEP_MS = 100
# Some file systems send no events, as those of other machines: look again this often.
_LOOK_AGAIN_MS = 1000


class Watched:
    """The Python and proto files below some folders, and some more files.

    Args:
        folders: The folders.
        files: Other files that count. Outside of the folders they are looked at only when something else has changed.
    """

    def __init__(self, folders: Collection[Path], files: Collection[Path]) -> None:
        found = {folder.resolve() for folder in folders if folder.is_dir()}
        self.folders = sorted(folder for folder in found if not found.intersection(folder.parents))
        self.files = tuple(file.resolve() for file in files)

    def state(self) -> State:
        """Return what tells one version of the files from another."""
        found = {}
        for file in (*self.files, *(file for folder in self.folders for file in _files_below(folder))):
            with suppress(OSError):  # removed meanwhile, which is a change by itself
                status = file.stat()
                found[file] = status.st_ino, status.st_mtime_ns, status.st_size
        return found

    def watch(self, over: threading.Event, changed: Callable[[], None]) -> None:
        """Call ``changed`` after some of the files may have changed, and now and then, until ``over`` is set.

        Raises:
            RuntimeError: The system can't watch the folders.
        """
        from watchfiles import watch

        names = {file.name for file in self.files}
        for _ in watch(
            *self.folders,
            watch_filter=lambda _, path: path.endswith(_SUFFIXES) or os.path.basename(path) in names,
            stop_event=over,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_LOOK_AGAIN_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            changed()


def difference(before: State, after: State) -> list[Path]:
    """Return the files that were changed, added or removed, sorted.

    Example:
        >>> a, b, c = Path("a.py"), Path("b.py"), Path("c.py")
        >>> [str(file) for file in difference({a: (1, 1, 1), b: (2, 1, 1)}, {a: (1, 2, 1), c: (3, 1, 1)})]
        ['a.py', 'b.py', 'c.py']
    """
    return sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _OTHERS and not os.path.exists(f"{parent}/{name}/{_VENV}")
        ]
        yield from (Path(parent, name) for name in names if name.endswith(_SUFFIXES))
