"""Files that ``sdk run --reload`` watches."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from codegen.file_versions import POLL_MS, FileVersions, file_versions

_SUFFIXES = (".py", ".proto")
# Folders without code of the project. Hidden folders, and virtual environments of any name, are skipped too.
_SKIPPED = ("__pycache__", "node_modules", "site-packages")
_VENV = "pyvenv.cfg"
# Several changes within this time are reported as one, at the latest after it; and the interval of the checks. In
# milliseconds, https://watchfiles.helpmanual.io/api/watch/.
_DEBOUNCE_MS = 1600
_STEP_MS = 100


class WatchedFiles:
    """The Python and proto files below some folders, and some more files.

    Args:
        folders: The folders.
        files: Other files. Those outside of the folders are compared only after another file has changed.
    """

    def __init__(self, folders: Collection[Path], files: Collection[Path]) -> None:
        found = {folder.resolve() for folder in folders if folder.is_dir()}
        self.folders = sorted(folder for folder in found if not found.intersection(folder.parents))
        self.files = tuple(file.resolve() for file in files)

    def versions(self) -> FileVersions:
        """Return the version of each file."""
        return file_versions([*self.files, *(file for folder in self.folders for file in _files_below(folder))])

    def watch(self, over: threading.Event, changed: Callable[[], None]) -> None:
        """Call ``changed`` after files may have changed, and once a second, until ``over`` is set.

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
            rust_timeout=POLL_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            changed()


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _SKIPPED and not os.path.exists(f"{parent}/{name}/{_VENV}")
        ]
        yield from (Path(parent, name) for name in names if name.endswith(_SUFFIXES))
