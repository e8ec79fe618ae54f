"""Waits until a proto or ``pyproject.toml`` has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from codegen import config
from codegen.errors import CodegenError
from codegen.file_versions import POLL_MS, FileVersions, file_versions


def wait(paths: Sequence[Path], before: FileVersions) -> None:
    """Wait until ``versions(paths)`` differs from an earlier result.

    Args:
        paths: Proto files and folders of them.
        before: The earlier result.

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
    for _ in watch(*existing, watch_filter=_is_proto, rust_timeout=POLL_MS, yield_on_timeout=True):
        if versions(paths) != before:
            return


def versions(paths: Sequence[Path]) -> FileVersions:
    """Return the version of every proto below some paths, and of each ``pyproject.toml`` that may configure a run."""
    files = [Path(parent, config.FILE) for parent in (Path(), *Path.cwd().parents)]
    return file_versions([*files, *(file for path in paths for file in _protos(path))])


def _is_proto(_: object, path: str) -> bool:
    return path.endswith(".proto")


def _protos(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for parent, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(parent, name) for name in names if name.endswith(".proto"))
    else:
        yield path
