"""Waits until a proto, or what says how to compile it, has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from codegen import config
from codegen.errors import CodegenError

# A folder that was removed sends no more events, and some network file systems never do: look again this often.
_LOOK_AGAIN_MS = 1000

# The identity, time and size of each file.
State = Mapping[Path, tuple[int, int, int]]


def wait(paths: Sequence[Path], before: State) -> None:
    """Wait until ``state(paths)`` is not what it was before.

    Raises:
        CodegenError: ``watchfiles`` is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise CodegenError(
            "--watch needs watchfiles, which is not installed: pip install 'ray-grpc-sdk[codegen]'", exit_code=2
        ) from error
    existing = [path for path in paths if path.exists()]
    for _ in watch(*existing, watch_filter=_is_proto, rust_timeout=_LOOK_AGAIN_MS, yield_on_timeout=True):
        if state(paths) != before:
            return


def state(paths: Sequence[Path]) -> State:
    """Return what tells one version of every proto below some paths from another, and of ``pyproject.toml``."""
    found = {}
    files: list[Path] = [Path(parent, config.FILE) for parent in (Path(), *Path.cwd().parents)]
    files += (file for path in paths for file in _protos(path))
    for file in files:
        with suppress(OSError):  # it does not exist, or was removed, which is a change by itself
            status = file.stat()
            found[file] = status.st_ino, status.st_mtime_ns, status.st_size
    return found


def _is_proto(_: object, path: str) -> bool:
    return path.endswith(".proto")


def _protos(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for parent, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(parent, name) for name in names if name.endswith(".proto"))
    else:
        yield path
